"""Fits the correction of class scores behind masks: numbers in, numbers out; files and sessions are not known here."""

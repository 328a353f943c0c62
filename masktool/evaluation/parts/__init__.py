"""The parts of an evaluation, one per file: each is a question, measured image by image and summed up over them all."""

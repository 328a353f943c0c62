"""Masking models: trained once beside a classifier, they explain any image in one forward pass. Needs torch.

The method is that of Phang, Park and Geras, "Investigating and Simplifying Masking-based Saliency Methods for Model
Interpretability", 2020, https://arxiv.org/abs/2010.09750. :func:`masktool.maskers.train.train_masker` trains one and
writes its file.
"""

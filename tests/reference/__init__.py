"""A slow, plain and independent torch version of layer masking, to measure the exported models against.

Written from the paper (Balasubramanian and Feizi, "Towards Improved Input Masking for Convolutional Neural Networks",
ICCV 2023, arXiv 2211.14646) and the project's rules in words, without a look at the exporter: it works on torch's ATen
operators rather than ONNX's, masks eagerly after every one of them, folds and fuses nothing.
"""

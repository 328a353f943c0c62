"""The network computed only where a window can have changed it: from a masked file to the graphs that do that.

Source: Nakandala, Kumar and Papakonstantinou, "Incremental and Approximate Inference for Faster Occlusion-based Deep
CNN Explanations" (Krypton), SIGMOD 2019, https://doi.org/10.1145/3299869.3319874. There, operators of its own compute
the changed region; here, standard ones do, on a graph that is made for the size of the windows.
"""

"""Which architectures export, and how exactly: torchvision's and timm's networks with random weights of unit size.

    python -m benchmarks.architectures [NAME ...]

A name is ``torchvision:NAME`` or ``timm:NAME``. Columns: nodes of the plain graph; seconds for torch's exporter and
masktool together; what half the image changes (below 1 % of max |logit| the row is void: it would not notice a
defect); what a mask of ones changes; what NaN and infinities under the mask change; what the batch changes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

import masktool
from benchmarks.random_weights import draw_weights
from benchmarks.torchvision_networks import import_torchvision_models
from masktool import MasktoolError
from masktool.exporters.sources import load_source
from masktool.exporters.tolerance import ONES_TOLERANCE

TORCHVISION = [
    "alexnet",
    "vgg11_bn",
    "squeezenet1_1",
    "densenet121",
    "googlenet",
    "inception_v3",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "efficientnet_b0",
    "efficientnet_v2_s",
    "mnasnet0_5",
    "shufflenet_v2_x0_5",
    "resnext50_32x4d",
    "wide_resnet50_2",
    "regnet_y_400mf",
    "convnext_tiny",
]
TIMM = [
    "resnet26d",
    "resnetv2_50",
    "seresnet50",
    "ecaresnet26t",
    "resnest14d",
    "res2net50_26w_4s",
    "dpn48b",
    "hrnet_w18_small",
    "ghostnet_100",
    "mixnet_s",
    "tf_efficientnet_b0",
    "rexnet_100",
    "nfnet_f0",
    "repvgg_a0",
    "cspdarknet53",
    "vovnet39a",
    "convnextv2_atto",
    "mobilenetv4_conv_small",
    "mobileone_s0",
    "fastvit_t8",
    "xception41",
    "dla34",
    "regnetz_b16",
    "resnet18d",
    "skresnet18",
    "darknet53",
    "inception_resnet_v2",
]
LEAST_RESPONSE = 0.01
DEFAULT_SIDE = 224
SIDES = {"torchvision:inception_v3": 299}
SHOWN_REASON = 60
"""Characters of a refusal."""


def build(name: str) -> tuple[nn.Module, int]:
    """Returns a network with random weights and the side of its input in pixels."""
    library, _, network = name.partition(":")
    models = import_torchvision_models()  # timm imports torchvision as well
    if library == "torchvision":
        options = {"init_weights": False} if network in ("googlenet", "inception_v3") else {}
        return models.get_model(network, weights=None, **options), SIDES.get(name, DEFAULT_SIDE)
    import timm

    module = timm.create_model(network, pretrained=False)
    return module, module.pretrained_cfg["input_size"][-1]


def measure(name: str, folder: Path) -> list[str]:
    """Returns the row of one network."""
    module, side = build(name)
    size = (side, side)
    draw_weights(module, torch.Generator().manual_seed(0), size)
    started = time.perf_counter()
    source = load_source(module, input_size=size)
    nodes = str(len(source.model.graph))
    try:
        parity = masktool.export(source, folder / "masked.onnx").metadata.parity
    except MasktoolError as error:
        return [name, nodes, f"{time.perf_counter() - started:.0f}", "", "", "", "", f"refused: {error}"[:SHOWN_REASON]]
    figures = [f"{parity[key]:.1e}" if parity[key] else "0" for key in ("ones", "invariance", "batches")]
    row = [name, nodes, f"{time.perf_counter() - started:.0f}", f"{parity['response']:.3f}", *figures]
    return [*row, judge(parity["response"], parity["ones"])]


def judge(response: float, ones: float) -> str:
    """Returns the verdict on a network that exported."""
    if response < LEAST_RESPONSE:
        return "void"
    return "exact" if ones == 0 else "≤ 1e-5" if ones <= ONES_TOLERANCE else "differs"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")  # torch's exporter deprecates parts of itself
    names = options.names or [*(f"torchvision:{name}" for name in TORCHVISION), *(f"timm:{name}" for name in TIMM)]
    table = Table("network", "nodes", "s", "response", "ones", "NaN", "batches", "verdict")
    console = Console(width=130)
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            row = measure(name, Path(folder))
            table.add_row(*row)
            console.print(*row)
    console.print(table)


if __name__ == "__main__":
    main()

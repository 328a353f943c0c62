"""Explains a folder of photographs, or a place in an object store, in Ray. Killed and run again, it goes on.

    python examples/ray_folder.py MODEL PHOTOGRAPHS OUT

MODEL lies at the same path on every node; PHOTOGRAPHS and OUT are what Ray's readers and writers take: folders that
every node sees, or addresses such as s3://bucket/photographs. OUT gets rows/*.parquet and pictures/*.png.
"""

import argparse
import json
import pathlib

import ray
from ray.data.checkpoint import CheckpointConfig

from masktool.ray import Explain


def main() -> None:
    """Reads, explains and writes; Ray notes in OUT/checkpoint which photographs have their rows written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("photographs")
    parser.add_argument("out")
    parser.add_argument("--method", default="lime")
    parser.add_argument("--options", type=json.loads, default={}, help='such as {"n_samples": 100}')
    parser.add_argument("--actors", type=int, default=1)
    parser.add_argument("--cpus", type=float, default=1, help="of each actor")
    parser.add_argument("--gpus", type=float, default=0, help="of each actor; .25 lets four share a GPU")
    parser.add_argument("--batch", type=int, default=16, help="photographs in memory, and done again, at a time")
    given = parser.parse_args()
    here = "://" not in given.out
    out = str(pathlib.Path(given.out).absolute()) if here else given.out.rstrip("/")

    ray.init()  # the cluster that RAY_ADDRESS names, or else one of this machine alone
    ray.data.DataContext.get_current().checkpoint_config = CheckpointConfig(
        id_column="path", checkpoint_path=f"{out}/checkpoint", delete_checkpoint_on_success=False
    )
    # Reading and writing ask for no CPU of Ray's: where the actors have all, nothing would be read.
    photographs = ray.data.read_binary_files(given.photographs, include_paths=True, num_cpus=0)
    photographs.map_batches(
        Explain,
        fn_constructor_kwargs={
            "model": str(given.model.absolute()),
            "method": given.method,
            "keep": ["path"],  # what the checkpoint knows photographs by
            "pictures": f"{out}/pictures",
            "root": given.photographs,
            **given.options,
        },
        compute=ray.data.ActorPoolStrategy(size=given.actors),
        batch_size=given.batch,
        num_cpus=given.cpus,
        num_gpus=given.gpus,
    ).write_parquet(f"{out}/rows", ray_remote_args={"num_cpus": 0})


if __name__ == "__main__":
    main()

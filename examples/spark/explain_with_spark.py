"""A file that explains itself in Spark: each Python worker opens it once and runs batches of rows.

python explain_with_spark.py MODEL IMAGES.parquet OUT
"""

import sys
from collections.abc import Iterator

import numpy as np
import pandas as pd
from pyspark.sql import SparkSession
from pyspark.sql.functions import pandas_udf


def main(model: str, images: str, out: str) -> None:
    """Reads `file` and `pixels`, what the model takes laid flat; writes `file`, `scores` and `saliency_map`."""
    spark = SparkSession.builder.getOrCreate()

    @pandas_udf("scores array<float>, saliency_map array<float>")
    def explain(batches: Iterator[pd.Series]) -> Iterator[pd.DataFrame]:
        import onnxruntime

        session = onnxruntime.InferenceSession(model)  # here, in the worker: a session cannot be sent to one
        taken = session.get_inputs()[0]
        for batch in batches:
            pixels = np.stack(batch).astype(np.float32).reshape(-1, *taken.shape[1:])
            found = [values.reshape(len(batch), -1) for values in session.run(None, {taken.name: pixels})]
            yield pd.DataFrame(dict(zip(("scores", "saliency_map"), map(list, found), strict=True)))

    spark.read.parquet(images).select("file", explain("pixels").alias("found")).select("file", "found.*").write.parquet(
        out
    )


if __name__ == "__main__":
    main(*sys.argv[1:])

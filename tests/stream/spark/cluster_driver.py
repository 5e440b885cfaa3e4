"""A driver of its own for `test_cluster.py`: a pipeline on a local cluster, told to end by the end of its input.

Arguments: the URL of a broker, a folder. The test kills executors meanwhile.
"""

from __future__ import annotations

import sys
from pathlib import Path

from headrace.stream.spark.run import run_on_spark, session
from tests.stream.spark.cluster_plan import plan


def main(broker: str, folder: Path) -> None:
    spark = session("cluster", "local-cluster[2,1,1024]")
    spark.sparkContext.setLogLevel("OFF")
    (folder / "ready").touch()
    run_on_spark(
        plan(), broker, spark=spark, checkpoint=folder / "checkpoint", until="idle",
        read={"maxMessagesPerTrigger": "1000", "maxMessagesPerPartition": "250"},
    )  # fmt: skip
    spark.stop()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))

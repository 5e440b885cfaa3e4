"""What makes Spark compile less: for a few rows a query it is not worth it. Half the CPU time of the tests."""

from __future__ import annotations

from typing import Final

_JAVA: Final = '"-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"'

LEAN: Final = (
    f"--driver-java-options {_JAVA} --conf spark.executor.extraJavaOptions={_JAVA} --conf spark.ui.enabled=false"
    " --conf spark.sql.codegen.wholeStage=false --conf spark.sql.codegen.factoryMode=NO_CODEGEN pyspark-shell"
)
"""For PYSPARK_SUBMIT_ARGS."""

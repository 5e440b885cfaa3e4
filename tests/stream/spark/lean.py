"""What makes Spark compile less, and start fewer processes: for a few rows a query it is not worth it. Half the CPU time."""

from __future__ import annotations

from typing import Final

# Spark's classes are not verified again: a sixth of its start. And without Hadoop's own library Java starts a process for
# every chmod and readlink: by vfork that costs half.
_JAVA: Final = (
    '"-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -XX:+UnlockDiagnosticVMOptions -XX:-BytecodeVerificationRemote'
    ' -Djdk.lang.Process.launchMechanism=VFORK"'
)

LEAN: Final = (
    f"--driver-java-options {_JAVA} --conf spark.executor.extraJavaOptions={_JAVA} --conf spark.ui.enabled=false"
    " --conf spark.sql.codegen.wholeStage=false --conf spark.sql.codegen.factoryMode=NO_CODEGEN pyspark-shell"
)
"""For PYSPARK_SUBMIT_ARGS."""

FEW_FILES: Final = (
    "--conf spark.hadoop.fs.file.impl=org.apache.hadoop.fs.RawLocalFileSystem"
    " --conf spark.hadoop.fs.AbstractFileSystem.file.impl=org.apache.hadoop.fs.local.RawLocalFs"
    " --conf spark.sql.streaming.checkpoint.fileChecksum.enabled=false"
    " --conf spark.sql.streaming.checkpointFileManagerClass="
    "org.apache.spark.sql.execution.streaming.checkpointing.FileSystemBasedCheckpointFileManager"
)
"""Before LEAN, where no test kills Spark: no checksums lie beside a checkpoint's files, and none is asked whether it is a link."""

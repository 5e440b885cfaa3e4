"""The SQL of pipelines: Spark's dialect, parsed by sqlglot, checked against what streams can do, and compiled.

    analyse(step)       its output's schema and event time; raises PlanRefused
    compile(pipeline)   the physical plan for the embedded engine
    to_spark(step)      the text for Spark

The same check stands before both engines, so what one refuses the other does, too.
"""

from __future__ import annotations

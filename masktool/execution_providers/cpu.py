"""The CPU, which stands behind every other provider for the nodes that it lacks."""

from masktool.execution_providers.provider import HOST, ExecutionProvider

CPU = ExecutionProvider(
    name="cpu", runtime_name="CPUExecutionProvider", title="CPU", devices="every processor", on_gpu=False, memory=HOST
)

"""CoreML: Apple's GPUs and neural engine.

Options as in ONNX Runtime's ``coreml_options.cc``. ``ModelFormat`` is ``MLProgram``: ONNX Runtime's default, the older
``NeuralNetwork``, computes in 16 bits wherever CoreML likes.
"""

from masktool.execution_providers.provider import ExecutionProvider, choice_option, switch_option, text_option

COREML = ExecutionProvider(
    name="coreml",
    runtime_name="CoreMLExecutionProvider",
    title="CoreML",
    devices="Apple's GPUs and neural engine",
    package="onnxruntime",
    systems=("darwin",),
    by_name_only="lacks operators that masks need, so that the graph goes to and fro",
    defaults=(("ModelFormat", "MLProgram"),),
    options=(
        choice_option("ModelFormat", "CoreML's format.", "NeuralNetwork", choices=("MLProgram", "NeuralNetwork")),
        choice_option(
            "MLComputeUnits", "Where to compute.", "ALL", choices=("ALL", "CPUOnly", "CPUAndGPU", "CPUAndNeuralEngine")
        ),
        switch_option("RequireStaticInputShapes", "Whether only nodes of fixed shapes are taken.", "0"),
        switch_option("EnableOnSubgraphs", "Whether bodies of loops and branches are taken too.", "0"),
        choice_option(
            "SpecializationStrategy", "What CoreML prepares for.", "Default", choices=("Default", "FastPrediction")
        ),
        switch_option(
            "AllowLowPrecisionAccumulationOnGPU", "Whether GPUs may add in float16, which changes scores.", "0"
        ),
        switch_option("ProfileComputePlan", "Whether the plan is logged.", "0"),
        text_option("ModelCacheDirectory", "Folder for compiled files."),
    ),
)

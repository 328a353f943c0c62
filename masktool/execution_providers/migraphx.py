"""MIGraphX: AMD's GPUs. ONNX Runtime removed its ROCm provider in 1.23 and points to this one.

Options as in ONNX Runtime's ``migraphx_execution_provider_info.h``, without those that are addresses in memory.
"""

from masktool.execution_providers.provider import (
    ExecutionProvider,
    choice_option,
    number_option,
    switch_option,
    text_option,
)

MIGRAPHX = ExecutionProvider(
    name="migraphx",
    runtime_name="MIGraphXExecutionProvider",
    title="MIGraphX",
    devices="AMD GPUs",
    package="onnxruntime-migraphx",
    besides="AMD's ROCm with MIGraphX",
    systems=("linux",),
    driver="amd",
    warm_up="compiles in the first run of every shape",
    kept_by="migraphx_model_cache_dir",
    aliases=("rocm",),
    trials=((("migraphx_model_cache_dir", "FOLDER"),),),
    options=(
        number_option("device_id", "Which GPU.", "0"),
        text_option("migraphx_model_cache_dir", "Folder for compiled files: the first run of each shape compiles."),
        switch_option("migraphx_exhaustive_tune", "Whether kernels are measured while compiling.", "0"),
        switch_option("migraphx_fp16_enable", "Whether float32 becomes float16, which changes scores.", "0"),
        switch_option("migraphx_bf16_enable", "Whether float32 becomes bfloat16, which changes scores.", "0"),
        switch_option("migraphx_fp8_enable", "Whether float32 becomes float8, which changes scores.", "0"),
        switch_option("migraphx_int8_enable", "Whether float32 becomes int8, which changes scores.", "0"),
        text_option("migraphx_int8_calibration_table_name", "File of ranges for int8."),
        switch_option("migraphx_int8_use_native_calibration_table", "Whether that file is MIGraphX's own.", "0"),
        number_option("migraphx_mem_limit", "Bytes that the arena may take.", "Unlimited"),
        choice_option(
            "migraphx_arena_extend_strategy",
            "How the arena grows.",
            "kNextPowerOfTwo",
            choices=("kNextPowerOfTwo", "kSameAsRequested"),
        ),
    ),
)

"""CUDA: NVIDIA's GPUs.

Options as in ONNX Runtime's ``cuda_execution_provider_info.cc``, without those that are addresses in memory and those
of language models (``ep.cuda.*``).

TF32 is off: with it, GPUs since Ampere round the factors of convolutions and matrix products to 10 bits, so that scores
leave the CPU's, with which a file's parity was measured, in the third digit. ``cudnn_conv_algo_search`` stays as ONNX
Runtime has it: with cuDNN 9, none of its values times anything; ``EXHAUSTIVE`` and ``HEURISTIC`` ask two of cuDNN's
heuristics, and ``DEFAULT`` takes what may be very slow.
"""

from masktool.execution_providers.provider import ExecutionProvider, choice_option, number_option, switch_option

CUDA = ExecutionProvider(
    name="cuda",
    runtime_name="CUDAExecutionProvider",
    title="CUDA",
    memory="cuda",
    devices="NVIDIA GPUs",
    package="onnxruntime-gpu",
    requirement='"onnxruntime-gpu[cuda,cudnn]"',
    systems=("linux", "win32"),
    driver="nvidia",
    defaults=(("use_tf32", "0"),),
    trials=(
        (("use_tf32", "1"),),
        (("cudnn_conv_algo_search", "HEURISTIC"),),
        (("gpu_mem_limit", "1073741824"), ("arena_extend_strategy", "kSameAsRequested")),
    ),
    options=(
        number_option("device_id", "Which GPU.", "0"),
        number_option("gpu_mem_limit", "Bytes that the arena may take; buffers outside it come on top.", "Unlimited"),
        choice_option(
            "arena_extend_strategy",
            "How the arena grows: by powers of two, or as asked for, which wastes less and asks the driver more often.",
            "kNextPowerOfTwo",
            choices=("kNextPowerOfTwo", "kSameAsRequested"),
        ),
        choice_option(
            "cudnn_conv_algo_search",
            "How cuDNN chooses a convolution; with cuDNN 9, DEFAULT may be very slow.",
            "EXHAUSTIVE",
            choices=("EXHAUSTIVE", "HEURISTIC", "DEFAULT"),
        ),
        switch_option(
            "cudnn_conv_use_max_workspace", "Whether a convolution may take all the memory that its plan asks for.", "1"
        ),
        switch_option("cudnn_conv1d_pad_to_nc1d", "Whether one-dimensional convolutions are padded in front.", "0"),
        switch_option("fuse_conv_bias", "Whether a convolution adds its bias itself.", "0"),
        switch_option("prefer_nhwc", "Whether convolutions run with channels last.", "0"),
        switch_option(
            "use_tf32",
            "Whether factors of float32 products may be rounded to 10 bits on GPUs since Ampere, which is faster.",
            "1",
        ),
        switch_option("do_copy_in_default_stream", "Whether copies wait for their turn; off, they may race.", "1"),
        switch_option("use_ep_level_unified_stream", "Whether all nodes share one stream.", "0"),
        switch_option("enable_cuda_graph", "Whether the run is recorded and repeated.", "0", captures=True),
        switch_option("enable_skip_layer_norm_strict_mode", "Whether layer norms add in float32.", "0"),
        number_option(
            "sdpa_kernel", "Which kernels of attention, as a sum of flags; 0 leaves it to ONNX Runtime.", "0"
        ),
        switch_option("tunable_op_enable", "Whether kernels are chosen by what was measured.", "0"),
        switch_option("tunable_op_tuning_enable", "Whether kernels are measured, when the former is on.", "0"),
        number_option(
            "tunable_op_max_tuning_duration_ms", "Milliseconds that measuring an operator may take.", "No limit"
        ),
    ),
)

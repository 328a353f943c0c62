"""TensorRT: NVIDIA's GPUs, by engines that are built for the file.

Options as in ONNX Runtime's ``tensorrt_execution_provider_info.cc``, without those that are addresses in memory.
"""

from masktool.execution_providers.provider import ExecutionProvider, number_option, switch_option, text_option

TENSORRT = ExecutionProvider(
    name="tensorrt",
    runtime_name="TensorrtExecutionProvider",
    title="TensorRT",
    memory="cuda",
    devices="NVIDIA GPUs",
    package="onnxruntime-gpu",
    besides="TensorRT's libraries",
    systems=("linux", "win32"),
    driver="nvidia",
    warm_up="builds an engine in the first run of every shape, which takes minutes",
    kept_by="trt_engine_cache_enable",
    by_name_only="builds an engine for every new shape, which takes minutes",
    trials=((("trt_engine_cache_enable", "1"), ("trt_engine_cache_path", "FOLDER")),),
    options=(
        number_option("device_id", "Which GPU.", "0"),
        switch_option(
            "trt_engine_cache_enable",
            "Whether engines are kept: the first run of each shape builds for minutes, a later session reads.",
            "0",
        ),
        text_option(
            "trt_engine_cache_path", "Folder of the kept engines; they fit one GPU, driver and version of TensorRT."
        ),
        text_option("trt_engine_cache_prefix", "Beginning of their names."),
        switch_option(
            "trt_timing_cache_enable", "Whether timings of kernels are kept, so that engines build faster.", "0"
        ),
        text_option("trt_timing_cache_path", "Folder of the kept timings."),
        switch_option("trt_force_timing_cache", "Whether timings of another GPU of the same kind are taken.", "0"),
        switch_option("trt_engine_hw_compatible", "Whether engines run on every GPU since Ampere.", "0"),
        number_option("trt_builder_optimization_level", "Time spent on building, 0 to 5.", "3"),
        switch_option("trt_build_heuristics_enable", "Whether heuristics shorten the building.", "0"),
        switch_option(
            "trt_force_sequential_engine_build", "Whether engines for several GPUs are built one by one.", "0"
        ),
        switch_option("trt_detailed_build_log", "Whether the building is logged.", "0"),
        text_option("trt_profile_min_shapes", "Smallest shapes, such as `image:1x3x224x224,mask:1x1x224x224`."),
        text_option("trt_profile_opt_shapes", "Shapes to be fastest at."),
        text_option("trt_profile_max_shapes", "Largest shapes: within these three no other engine is built."),
        number_option("trt_max_workspace_size", "Bytes that an engine may take besides.", "All that is free"),
        number_option(
            "trt_max_partition_iterations", "How often the graph is cut anew where TensorRT refuses a part.", "1000"
        ),
        number_option("trt_min_subgraph_size", "Fewest nodes of a part that TensorRT gets.", "1"),
        text_option("trt_op_types_to_exclude", "Operators that are left to other providers, separated by commas."),
        switch_option("trt_fp16_enable", "Whether float32 may become float16, which changes scores.", "0"),
        switch_option("trt_bf16_enable", "Whether float32 may become bfloat16, which changes scores.", "0"),
        switch_option("trt_int8_enable", "Whether float32 may become int8, which changes scores.", "0"),
        text_option("trt_int8_calibration_table_name", "File of ranges for int8."),
        switch_option("trt_int8_use_native_calibration_table", "Whether that file is TensorRT's own.", "0"),
        switch_option("trt_layer_norm_fp32_fallback", "Whether layer norms stay in float32 beside float16.", "0"),
        switch_option("trt_sparsity_enable", "Whether zeros in weights are made use of.", "0"),
        switch_option("trt_cuda_graph_enable", "Whether the run is recorded and repeated.", "0", captures=True),
        number_option("trt_auxiliary_streams", "Streams besides the first.", "TensorRT's choice"),
        switch_option("trt_context_memory_sharing_enable", "Whether parts of the graph share their memory.", "0"),
        switch_option("trt_dla_enable", "Whether a deep-learning accelerator is used.", "0"),
        number_option("trt_dla_core", "Which accelerator.", "0"),
        text_option("trt_tactic_sources", "Libraries that kernels may come of, such as `-CUDNN,+CUBLAS`."),
        text_option("trt_preview_features", "Features of TensorRT that are not final."),
        text_option(
            "trt_extra_plugin_lib_paths", "Libraries of further operators, separated by semicolons; they run code."
        ),
        switch_option("trt_dump_subgraphs", "Whether the parts that TensorRT gets are written into files.", "0"),
        switch_option("trt_dump_ep_context_model", "Whether a file with the engine in it is written.", "0"),
        text_option("trt_ep_context_file_path", "That file."),
        number_option("trt_ep_context_embed_mode", "1: the engine stands in that file; 0: beside it.", "0"),
        switch_option("trt_weight_stripped_engine_enable", "Whether engines are kept without weights.", "0"),
        switch_option("trt_load_user_initializer", "Whether weights are read from memory instead of the file.", "0"),
        switch_option("trt_engine_decryption_enable", "Whether kept engines are encrypted.", "0"),
        text_option("trt_engine_decryption_lib_path", "Library that decrypts them; it runs code."),
    ),
)

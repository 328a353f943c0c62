"""Operators that a ``torch.export`` archive may call without consent: functions of tensors and nothing else.

By name, whatever the overload; a name with ``_`` behind it is the same in place. The list holds what networks on images
call. Left out on purpose are operators of aten that reach beyond their tensors (``save`` and ``from_file`` write and
read files, ``warn`` and ``_print`` speak), that skip torch's own checks of indices (``_unsafe_index_put``,
``_index_put_impl_``), that show memory which nobody wrote (``empty``), and all that take subgraphs or functions.
"""

from __future__ import annotations

import re

from masktool.exporters.torch_sources.pt2_grammar import UnknownFormError, shown_form

TARGET = re.compile(r"torch\.ops\.aten\.(\w+)\.([A-Za-z]\w*)", re.ASCII)
ATEN = frozenset(
    """
    abs absolute acos acosh add addbmm addcdiv addcmul addmm addmv addr adaptive_avg_pool1d adaptive_avg_pool2d
    adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d affine_grid_generator alias all
    alpha_dropout amax amin aminmax any arange arccos arcsin arctan argmax argmin argsort asin asinh atan atan2 atanh
    avg_pool1d avg_pool2d avg_pool3d baddbmm batch_norm bernoulli bilinear bitwise_and bitwise_not bitwise_or
    bitwise_xor bmm broadcast_tensors broadcast_to bucketize cat cdist ceil celu channel_shuffle chunk clamp clamp_max
    clamp_min clip clone col2im concat concatenate constant_pad_nd contiguous conv1d conv2d conv3d conv_transpose1d
    conv_transpose2d conv_transpose3d convolution copy cos cosh cosine_similarity cross cummax cummin cumprod cumsum
    deg2rad det detach diag diag_embed diagonal div divide dot dropout einsum elu embedding eq erf erfc exp exp2 expand
    expand_as expm1 feature_alpha_dropout feature_dropout fft_fft fft_fft2 fft_fftn fft_fftshift fft_ifft fft_ifft2
    fft_ifftn fft_ifftshift fft_irfft fft_irfft2 fft_irfftn fft_rfft fft_rfft2 fft_rfftn fill flatten flip fliplr
    flipud floor floor_divide fmod frac full full_like gather ge gelu ger glu greater greater_equal grid_sampler
    grid_sampler_2d grid_sampler_3d group_norm gru gt hardshrink hardsigmoid hardswish hardtanh heaviside hsplit im2col
    imag index index_add index_copy index_fill index_put index_select inner instance_norm isfinite isinf isnan item
    kron layer_norm le leaky_relu lerp less less_equal lift_fresh_copy linalg_cross linalg_det linalg_inv
    linalg_matrix_norm linalg_norm linalg_vector_norm linear linspace log log10 log1p log2 log_sigmoid log_softmax
    logaddexp logcumsumexp logical_and logical_not logical_or logical_xor logit logsumexp lstm lt mT masked_fill
    masked_scatter masked_select matmul matrix_H max max_pool1d max_pool2d max_pool2d_with_indices max_pool3d
    max_pool3d_with_indices max_unpool2d maximum mean median meshgrid min minimum mish mm movedim msort mul multiply mv
    nan_to_num nansum narrow native_batch_norm native_channel_shuffle native_group_norm native_layer_norm ne neg
    negative new_full new_ones new_zeros nonzero nonzero_numpy norm not_equal numpy_T one_hot ones ones_like outer pad
    permute pixel_shuffle pixel_unshuffle polar positive pow prelu prod rad2deg rand rand_like randint randint_like
    randn randn_like real reciprocal reflection_pad1d reflection_pad2d reflection_pad3d relu relu6 remainder repeat
    repeat_interleave replication_pad1d replication_pad2d replication_pad3d reshape reshape_as rms_norm roll rot90 round
    rsqrt rsub scalar_tensor scaled_dot_product_attention scatter scatter_add scatter_reduce searchsorted select
    select_scatter selu sgn sigmoid sign silu sin sinc sinh slice slice_scatter softmax softplus softshrink sort split
    split_with_sizes sqrt square squeeze stack std std_mean sub subtract sum swapaxes swapdims sym_constrain_range
    sym_constrain_range_for_size sym_numel sym_size sym_storage_offset sym_stride t take_along_dim tan tanh tensor_split
    tensordot threshold tile to topk trace transpose tril tril_indices triu triu_indices true_divide trunc type_as
    unbind unflatten unfold unsafe_chunk unsafe_split unsqueeze upsample_bicubic2d upsample_bilinear2d
    upsample_linear1d upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_trilinear3d var var_mean view
    view_as view_as_complex view_as_real vsplit vstack where xlogy zero zeros zeros_like
    _adaptive_avg_pool2d _assert_scalar _assert_tensor_metadata _local_scalar_dense _log_softmax
    _native_batch_norm_legit _native_batch_norm_legit_no_training _softmax _to_copy _unsafe_view
    _upsample_bicubic2d_aa _upsample_bilinear2d_aa _upsample_nearest_exact1d _upsample_nearest_exact2d
    """.split()  # noqa: SIM905 (a list of words, which is read as one)
)
SYMBOLIC = frozenset(
    [f"_operator.{name}" for name in ("add", "and_", "eq", "floordiv", "ge", "gt", "le", "lt", "mod", "mul", "ne")]
    + [f"_operator.{name}" for name in ("neg", "or_", "sub")]
    + [f"torch.{name}" for name in ("sym_float", "sym_int", "sym_ite", "sym_max", "sym_min", "sym_not")]
    + ["math.trunc"]
)
"""Arithmetic on open lengths."""


def operator(value: object, place: str) -> str:
    """The form of an operator's name.

    Raises:
        UnknownFormError: the operator is not in this file's list, or torch has none of that name.
    """
    if isinstance(value, str) and value in SYMBOLIC:
        return value
    found = TARGET.fullmatch(value) if isinstance(value, str) else None
    if found is None or not is_listed(found[1]) or not is_overload(found[1], found[2]):
        raise UnknownFormError(
            f"{place}, operator {shown_form(value)}, is none of those that are known to compute alone"
        )
    return str(value)


def is_listed(name: str) -> bool:
    """Tells whether an operator is listed, in place or not."""
    return name in ATEN or (name.endswith("_") and name[:-1] in ATEN)


def is_overload(name: str, overload: str) -> bool:
    """Tells whether a name and overload are an operator of torch's, and no other attribute of that name."""
    import torch

    packet = getattr(torch.ops.aten, name, None)
    return isinstance(getattr(packet, overload, None), torch._ops.OpOverload)

"""One small network of each family, as ONNX text: what their operators do to masks and gradients, quickly run."""

HEAD = '<ir_version: 10, opset_import: ["" : 20]>\n'
"""What stands in front of each text; :func:`networks.small_graphs.parse` makes a model of both."""
FAMILIES = {
    "squeeze and excitation": """
net (float[N, 3, 12, 12] image) => (float[N, 4] logits)
<float[6, 3, 3, 3] kernel, float[2, 6, 1, 1] squeeze, float[6, 2, 1, 1] excite, float[6, 4] weight>
{
    features = Conv<pads = [1, 1, 1, 1]>(image, kernel)
    active = Relu(features)
    means = GlobalAveragePool(active)
    few = Conv(means, squeeze)
    few_active = Relu(few)
    many = Conv(few_active, excite)
    gate = Sigmoid(many)
    gated = Mul(active, gate)
    pooled = GlobalAveragePool(gated)
    flat = Flatten(pooled)
    logits = Gemm(flat, weight)
}
""",
    "concatenation": """
net (float[N, 3, 12, 12] image) => (float[N, 4] logits)
<float[4, 3, 3, 3] wide, float[4, 3, 1, 1] narrow, float[8, 4] weight>
{
    one = Conv<pads = [1, 1, 1, 1]>(image, wide)
    other = Conv(image, narrow)
    both = Concat<axis = 1>(one, other)
    active = Relu(both)
    pooled = GlobalAveragePool(active)
    flat = Flatten(pooled)
    logits = Gemm(flat, weight)
}
""",
    "attention": """
net (float[N, 3, 12, 12] image) => (float[N, 4] logits)
<float[6, 3, 3, 3] kernel, float[6, 6] query, float[6, 6] key, float[6, 4] weight,
 int64[1] axis = {1}, int64[3] tokens = {0, 6, 16}, float scale = {0.4}>
{
    features = Conv<strides = [3, 3]>(image, kernel)
    rows = Reshape(features, tokens)
    words = Transpose<perm = [0, 2, 1]>(rows)
    asked = MatMul(words, query)
    known = MatMul(words, key)
    turned = Transpose<perm = [0, 2, 1]>(known)
    products = MatMul(asked, turned)
    scaled = Mul(products, scale)
    shares = Softmax<axis = -1>(scaled)
    mixed = MatMul(shares, words)
    pooled = ReduceMean<keepdims = 0>(mixed, axis)
    logits = Gemm(pooled, weight)
}
""",
    "depthwise": """
net (float[N, 3, 12, 12] image) => (float[N, 4] logits)
<float[6, 3, 3, 3] kernel, float[6, 1, 3, 3] each, float[6] bias, float[8, 6, 1, 1] across, float[8, 4] weight,
 float zero = {0}, float six = {6}>
{
    features = Conv<pads = [1, 1, 1, 1]>(image, kernel)
    active = Clip(features, zero, six)
    apart = Conv<group = 6, pads = [1, 1, 1, 1], strides = [2, 2]>(active, each, bias)
    apart_active = HardSwish(apart)
    joined = Conv(apart_active, across)
    largest = MaxPool<kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]>(joined)
    pooled = GlobalAveragePool(largest)
    flat = Flatten(pooled)
    logits = Gemm(flat, weight)
}
""",
    "group norm": """
net (float[N, 3, 12, 12] image) => (float[N, 4] logits)
<float[6, 3, 3, 3] kernel, float[6, 6, 3, 3] second, float[6, 4] weight, float[6, 1, 1] scale, float[6, 1, 1] shift,
 float[2] ones = {1, 1}, float[2] zeros = {0, 0}, int64[3] groups = {0, 2, -1}, int64[4] channels = {0, 6, 12, 12}>
{
    features = Conv<pads = [1, 1, 1, 1]>(image, kernel)
    grouped = Reshape(features, groups)
    normal = InstanceNormalization(grouped, ones, zeros)
    back = Reshape(normal, channels)
    scaled = Mul(back, scale)
    shifted = Add(scaled, shift)
    active = Relu(shifted)
    more = Conv<pads = [1, 1, 1, 1]>(active, second)
    sum = Add(more, active)
    pooled = GlobalAveragePool(sum)
    flat = Flatten(pooled)
    logits = Gemm(flat, weight)
}
""",
    "transposed convolution": """
net (float[N, 3, 12, 12] image) => (float[N, 4] logits)
<float[6, 3, 3, 3] kernel, float[6, 4, 2, 2] up, float[4, 4, 3, 3] over, float[4] bias, float[5, 4, 3, 3] last,
 float[5, 4] weight>
{
    low = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(image, kernel)
    active = Relu(low)
    high = ConvTranspose<strides = [2, 2]>(active, up)
    higher = ConvTranspose<strides = [2, 2], pads = [1, 1, 1, 1], output_padding = [1, 1]>(high, over, bias)
    sharp = Relu(higher)
    features = Conv<strides = [2, 2]>(sharp, last)
    pooled = GlobalAveragePool(features)
    flat = Flatten(pooled)
    logits = Gemm(flat, weight)
}
""",
    "resize": """
net (float[N, 3, 12, 12] image) => (float[N, 4] logits)
<float[6, 3, 3, 3] kernel, float[5, 12, 3, 3] last, float[5, 4] weight, float[4] twice = {1, 1, 2, 2}>
{
    low = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(image, kernel)
    active = Relu(low)
    copies = Resize<mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor">
        (active, , twice)
    smooth = Resize<mode = "linear">(active, , twice)
    both = Concat<axis = 1>(copies, smooth)
    features = Conv<strides = [2, 2]>(both, last)
    pooled = GlobalAveragePool(features)
    flat = Flatten(pooled)
    logits = Gemm(flat, weight)
}
""",
}

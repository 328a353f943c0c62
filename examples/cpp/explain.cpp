// Predicts and explains in one run, with ONNX Runtime's C++ interface (a header over its C interface).
//
//     explain MODEL.onnx INPUT.f32 MAP.f32
//
// MODEL.onnx comes from `masktool export MODEL --explain METHOD`; INPUT.f32 holds one image as the network takes it,
// raw float32; MAP.f32 becomes the saliency map, raw float32.
#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

int main(int count, char** arguments) try {
    if (count != 4) {
        std::cerr << "usage: explain MODEL.onnx INPUT.f32 MAP.f32\n";
        return 2;
    }
    Ort::Env environment(ORT_LOGGING_LEVEL_ERROR);  // warnings tell how ONNX Runtime optimises a graph
    const std::string model = arguments[1];
    Ort::Session session(environment, std::basic_string<ORTCHAR_T>(model.begin(), model.end()).c_str(),
                         Ort::SessionOptions{});

    // The first input is the image. Its first length is the number of images; where that is open, it is -1 here.
    auto shape = session.GetInputTypeInfo(0).GetTensorTypeAndShapeInfo().GetShape();
    shape[0] = 1;
    size_t length = 1;
    for (auto each : shape) length *= static_cast<size_t>(each);
    std::vector<float> image(length);
    std::ifstream input(arguments[2], std::ios::binary | std::ios::ate);
    if (static_cast<size_t>(input.tellg()) != length * sizeof(float)) {
        std::cerr << "the input must hold " << length << " float32 numbers\n";
        return 1;
    }
    input.seekg(0).read(reinterpret_cast<char*>(image.data()), static_cast<std::streamsize>(length * sizeof(float)));

    // Files made with required inputs for the class and the wish to explain get these too.
    std::int64_t target = -1;  // the class to explain; -1 for the top prediction
    bool wanted = true;
    const std::int64_t one = 1;
    auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    std::vector<std::string> names = session.GetInputNames();
    std::vector<const char*> input_names;
    std::vector<Ort::Value> inputs;
    for (const auto& name : names) {
        input_names.push_back(name.c_str());
        if (name == "target") {
            inputs.push_back(Ort::Value::CreateTensor<std::int64_t>(memory, &target, 1, &one, 1));
        } else if (name == "explain") {
            inputs.push_back(Ort::Value::CreateTensor<bool>(memory, &wanted, 1, &one, 1));
        } else {
            inputs.push_back(
                Ort::Value::CreateTensor<float>(memory, image.data(), length, shape.data(), shape.size()));
        }
    }

    // The network's scores come first; the file's metadata name them, if it has several outputs.
    auto metadata = session.GetModelMetadata();
    Ort::AllocatorWithDefaultOptions allocator;
    std::string scores = metadata.LookupCustomMetadataMapAllocated("masktool.class_output", allocator).get();
    scores = scores.substr(1, scores.size() - 2);  // JSON: a text between quotation marks
    const char* output_names[] = {scores.c_str(), "saliency_map"};
    auto outputs = session.Run(Ort::RunOptions{}, input_names.data(), inputs.data(), inputs.size(), output_names, 2);

    const float* values = outputs[0].GetTensorData<float>();
    const auto classes = outputs[0].GetTensorTypeAndShapeInfo().GetElementCount();
    const auto top = std::max_element(values, values + classes);
    std::cout << "class " << top - values << ", score " << *top << "\n";
    const auto pixels = outputs[1].GetTensorTypeAndShapeInfo().GetElementCount();
    std::ofstream(arguments[3], std::ios::binary)
        .write(reinterpret_cast<const char*>(outputs[1].GetTensorData<float>()),
               static_cast<std::streamsize>(pixels * sizeof(float)));
} catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
}

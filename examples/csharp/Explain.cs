// Predicts and explains in one run, with ONNX Runtime's C# interface.
//
//     dotnet run -- MODEL.onnx INPUT.f32 MAP.f32
//
// MODEL.onnx comes from `masktool export MODEL --explain METHOD`; INPUT.f32 holds one image as the network takes it,
// raw float32; MAP.f32 becomes the saliency map, raw float32.
using System;
using System.Collections.Generic;
using System.IO;
using System.Linq;
using System.Runtime.InteropServices;
using Microsoft.ML.OnnxRuntime;

static class Explain
{
    static int Main(string[] arguments)
    {
        if (arguments.Length != 3)
        {
            Console.Error.WriteLine("usage: explain MODEL.onnx INPUT.f32 MAP.f32");
            return 2;
        }
        try
        {
            Run(arguments[0], arguments[1], arguments[2]);
            return 0;
        }
        catch (Exception error)
        {
            Console.Error.WriteLine(error.Message);
            return 1;
        }
    }

    static void Run(string model, string input, string map)
    {
        // Warnings tell how ONNX Runtime optimises a graph.
        using var quiet = new SessionOptions { LogSeverityLevel = OrtLoggingLevel.ORT_LOGGING_LEVEL_ERROR };
        using var session = new InferenceSession(model, quiet);
        using var options = new RunOptions();

        // The file says which input is the image and which output holds the scores: texts in quotation marks.
        var metadata = session.ModelMetadata.CustomMetadataMap;
        var image = metadata["masktool.image_input"].Trim('"');
        var scores = metadata["masktool.class_output"].Trim('"');

        // One image; the first length is the number of images, and is -1 where that is open.
        var shape = session.InputMetadata[image].Dimensions.Select(length => (long)length).ToArray();
        shape[0] = 1;
        var pixels = ReadFloats(input, shape.Aggregate((product, length) => product * length));
        var inputs = new Dictionary<string, OrtValue> { [image] = OrtValue.CreateTensorValueFromMemory(pixels, shape) };

        // Files made with required inputs for the class and the wish to explain get these too.
        var one = new long[] { 1 };
        if (session.InputMetadata.ContainsKey("target")) // the class to explain; -1 for the top prediction
            inputs["target"] = OrtValue.CreateTensorValueFromMemory(new long[] { -1 }, one);
        if (session.InputMetadata.ContainsKey("explain"))
            inputs["explain"] = OrtValue.CreateTensorValueFromMemory(new[] { true }, one);

        using var outputs = session.Run(options, inputs, new[] { scores, "saliency_map" });
        var values = outputs[0].GetTensorDataAsSpan<float>().ToArray();
        var top = Array.IndexOf(values, values.Max());
        Console.WriteLine($"class {top}, score {values[top]}");
        File.WriteAllBytes(map, MemoryMarshal.AsBytes(outputs[1].GetTensorDataAsSpan<float>()).ToArray());
        foreach (var value in inputs.Values) value.Dispose();
    }

    static float[] ReadFloats(string path, long count)
    {
        var bytes = File.ReadAllBytes(path);
        if (bytes.Length != count * sizeof(float))
            throw new InvalidDataException($"the input must hold {count} float32 numbers");
        return MemoryMarshal.Cast<byte, float>(bytes).ToArray();
    }
}

/* Clean raw sound frame by frame with the C API of ONNX Runtime.
 *
 *     denoise export speech-live --format onnx-stream -o stream.onnx
 *     cc -O2 stream.c -I include -L lib -l onnxruntime -Wl,-rpath,'$ORIGIN/lib' -lm -o stream
 *     ./stream stream.onnx < noisy.f32 > clean.f32
 *
 * The sound is mono, float32, at the rate of the model. The output begins n_fft - hop samples
 * later than the input: the program writes a hop for every hop that it reads, as a sound card
 * expects, and the rest at the end. It runs models that do not look ahead (delay_frames 0). The
 * transforms are written out, which takes longer than those of an FFT library.
 */
#include <math.h>
#include <onnxruntime_c_api.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const OrtApi *ort;
static OrtAllocator *allocator;

static void check(OrtStatus *status) {
    if (status != NULL) {
        fprintf(stderr, "%s\n", ort->GetErrorMessage(status));
        exit(1);
    }
}

/* The caller frees it. */
static char *text(OrtModelMetadata *metadata, const char *key) {
    char *value = NULL;
    check(ort->ModelMetadataLookupCustomMetadataMap(metadata, allocator, key, &value));
    if (value == NULL) {
        fprintf(stderr, "the model has no %s; export it with --format onnx-stream\n", key);
        exit(1);
    }
    return value;
}

static int number(OrtModelMetadata *metadata, const char *key) {
    char *value = text(metadata, key);
    int result = atoi(value);
    check(ort->AllocatorFree(allocator, value));
    return result;
}

static OrtValue *tensor(OrtMemoryInfo *memory, float *values, const int64_t *shape, size_t rank) {
    size_t count = 1;
    for (size_t i = 0; i < rank; i++) count *= (size_t)shape[i];
    OrtValue *value = NULL;
    check(ort->CreateTensorWithDataAsOrtValue(memory, values, count * sizeof(float), shape, rank,
                                              ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &value));
    return value;
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: %s stream.onnx < noisy.f32 > clean.f32\n", argv[0]);
        return 2;
    }
    ort = OrtGetApiBase()->GetApi(ORT_API_VERSION);
    OrtEnv *env;
    OrtSessionOptions *options;
    OrtSession *session;
    OrtModelMetadata *metadata;
    OrtMemoryInfo *memory;
    check(ort->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "denoise", &env));
    check(ort->CreateSessionOptions(&options));
    check(ort->SetIntraOpNumThreads(options, 1));
    check(ort->CreateSession(env, argv[1], options, &session));
    check(ort->GetAllocatorWithDefaultOptions(&allocator));
    check(ort->SessionGetModelMetadata(session, &metadata));
    check(ort->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory));
    const int n_fft = number(metadata, "n_fft"), hop = number(metadata, "hop_length");
    const int bins = n_fft / 2 + 1;
    if (number(metadata, "delay_frames") != 0) {
        fprintf(stderr, "this program runs only models that do not look ahead, as speech-live\n");
        return 1;
    }
    char *name = text(metadata, "window");
    if (strcmp(name, "sqrt_hann") != 0) {
        fprintf(stderr, "this program has the window sqrt_hann, and the model needs %s\n", name);
        return 1;
    }
    check(ort->AllocatorFree(allocator, name));

    /* The second input is the state: (batch, size). */
    OrtTypeInfo *type;
    const OrtTensorTypeAndShapeInfo *info;
    int64_t state_shape[2];
    check(ort->SessionGetInputTypeInfo(session, 1, &type));
    check(ort->CastTypeInfoToTensorInfo(type, &info));
    check(ort->GetDimensions(info, state_shape, 2));
    state_shape[0] = 1;
    const size_t state_bytes = (size_t)state_shape[1] * sizeof(float);
    float *state = calloc(1, state_bytes);

    float *window = malloc(n_fft * sizeof(float)), *cosine = malloc(n_fft * sizeof(float));
    float *sine = malloc(n_fft * sizeof(float)), *spectrum = malloc(2 * bins * sizeof(float));
    float *sound = calloc(n_fft, sizeof(float)), *sum = calloc(n_fft, sizeof(float));
    for (int i = 0; i < n_fft; i++) {
        window[i] = sinf((float)M_PI * i / n_fft); /* sqrt_hann; its squares add up to n_fft / 2 hop */
        cosine[i] = cosf(2 * (float)M_PI * i / n_fft);
        sine[i] = sinf(2 * (float)M_PI * i / n_fft);
    }
    const int64_t spectrum_shape[4] = {1, bins, 1, 2};
    const char *inputs[] = {"spectrum", "state"}, *outputs[] = {"cleaned", "next_state"};

    size_t got = hop, left = n_fft - hop; /* samples that were read, and that are to be written */
    while (got == (size_t)hop || left > 0) {
        float *next = sound + n_fft - hop;
        got = fread(next, sizeof(float), hop, stdin);
        memset(next + got, 0, (hop - got) * sizeof(float));
        left += got;
        for (int k = 0; k < bins; k++) {
            float real = 0, imaginary = 0;
            for (int i = 0; i < n_fft; i++) {
                float x = sound[i] * window[i];
                int angle = (int)((long)k * i % n_fft);
                real += x * cosine[angle];
                imaginary -= x * sine[angle];
            }
            spectrum[2 * k] = real;
            spectrum[2 * k + 1] = imaginary;
        }
        const OrtValue *in[2] = {tensor(memory, spectrum, spectrum_shape, 4),
                                 tensor(memory, state, state_shape, 2)};
        OrtValue *out[2] = {NULL, NULL};
        float *cleaned, *next_state;
        check(ort->Run(session, NULL, inputs, in, 2, outputs, 2, out));
        check(ort->GetTensorMutableData(out[0], (void **)&cleaned));
        check(ort->GetTensorMutableData(out[1], (void **)&next_state));
        memcpy(state, next_state, state_bytes);
        for (int i = 0; i < n_fft; i++) {
            float x = cleaned[0] + (i % 2 ? -1 : 1) * cleaned[2 * (bins - 1)];
            for (int k = 1; k < bins - 1; k++) {
                int angle = (int)((long)k * i % n_fft);
                x += 2 * (cleaned[2 * k] * cosine[angle] - cleaned[2 * k + 1] * sine[angle]);
            }
            sum[i] += x / n_fft * window[i] * 2 * hop / n_fft;
        }
        for (int i = 0; i < 2; i++) {
            ort->ReleaseValue((OrtValue *)in[i]);
            ort->ReleaseValue(out[i]);
        }
        const size_t count = left < (size_t)hop ? left : (size_t)hop;
        fwrite(sum, sizeof(float), count, stdout);
        left -= count;
        fflush(stdout);
        memmove(sum, sum + hop, (n_fft - hop) * sizeof(float));
        memset(sum + n_fft - hop, 0, hop * sizeof(float));
        memmove(sound, sound + hop, (n_fft - hop) * sizeof(float));
    }
    return 0;
}

// Runs all tiles of one generated CPU kernel on one thread. Scratch is NaN before every tile.
//
// Without ENTRY: a function for ctypes. With ENTRY: a program that reads its arrays from a file into blocks of their exact size,
// so that AddressSanitizer sees every step past an end, and writes the output to another file.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

typedef void Kernel(const float* const* inputs, float* output, const float* params, const int* sizes, long long tile,
                    float* scratch);

extern "C" __attribute__((visibility("default"))) void run_tiles(Kernel* kernel, const float* const* inputs, float* output,
                                                                 const float* params, const int* sizes, long long tiles,
                                                                 float* scratch, long long scratch_floats) {
  for (long long tile = 0; tile < tiles; ++tile) {
    if (scratch_floats > 0) std::memset(scratch, 0xff, static_cast<std::size_t>(scratch_floats) * sizeof(float));
    kernel(inputs, output, params, sizes, tile, scratch);
  }
}

#ifdef ENTRY
extern "C" Kernel ENTRY;

static void* block(std::size_t bytes) {
  void* memory = nullptr;
  if (posix_memalign(&memory, 64, bytes) != 0) std::abort();
  return memory;
}

static long long number(std::FILE* file) {
  long long value = 0;
  if (std::fread(&value, sizeof value, 1, file) != 1) std::abort();
  return value;
}

static void* array(std::FILE* file, std::size_t element, long long& count) {
  count = number(file);
  void* memory = block(static_cast<std::size_t>(count) * element);
  if (std::fread(memory, element, static_cast<std::size_t>(count), file) != static_cast<std::size_t>(count)) std::abort();
  return memory;
}

int main(int, char** words) {
  std::FILE* file = std::fopen(words[1], "rb");
  if (file == nullptr) return 1;
  std::vector<const float*> inputs;
  long long count = 0;
  for (long long left = number(file); left > 0; --left) inputs.push_back(static_cast<float*>(array(file, sizeof(float), count)));
  float* output = static_cast<float*>(array(file, sizeof(float), count));
  const long long outputs = count;
  const float* params = static_cast<float*>(array(file, sizeof(float), count));
  const int* sizes = static_cast<int*>(array(file, sizeof(int), count));
  const long long tiles = number(file), scratch_floats = number(file);
  float* scratch = static_cast<float*>(block(static_cast<std::size_t>(scratch_floats) * sizeof(float)));
  run_tiles(ENTRY, inputs.data(), output, params, sizes, tiles, scratch, scratch_floats);
  std::FILE* result = std::fopen(words[2], "wb");
  if (result == nullptr) return 1;
  std::fwrite(output, sizeof(float), static_cast<std::size_t>(outputs), result);
  return std::fclose(result);
}
#endif

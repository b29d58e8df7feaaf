// The executable form, for sanitizers: reads a launch from a file, runs it, writes the arrays to another file.
//
//   program --signature            prints the kernel's parameters
//   program REQUEST RESULT         exit code 0, or 3 with the emulator's message on stderr (sanitizers exit in their own way)
//
// REQUEST: a Request (its pointer ignored), then per argument an Argument (its pointer ignored) followed by its bytes, none for
// an array that is the same as an earlier one. RESULT: the bytes of every array of REQUEST, in the same order.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "launch.hpp"

namespace {

using fusec_emulator::Argument;
using fusec_emulator::Request;

constexpr int FAILED = 3;

void read_exactly(FILE* file, void* to, size_t bytes) {
    if (bytes > 0 && fread(to, 1, bytes, file) != bytes) {
        fprintf(stderr, "the request ends too early\n");
        exit(FAILED);
    }
}

void read_request(const char* path, Request& request) {
    FILE* file = fopen(path, "rb");
    if (file == nullptr) {
        perror(path);
        exit(FAILED);
    }
    read_exactly(file, &request, sizeof(request));
    request.arguments = static_cast<Argument*>(calloc(request.count + 1, sizeof(Argument)));
    for (uint32_t i = 0; i < request.count; ++i) {
        Argument& argument = request.arguments[i];
        read_exactly(file, &argument, sizeof(argument));
        argument.data = nullptr;
        if (argument.same_as >= 0) continue;
        argument.data = malloc(argument.bytes + 1);
        read_exactly(file, argument.data, argument.bytes);
    }
    fclose(file);
}

int write_result(const char* path, const Request& request) {
    FILE* file = fopen(path, "wb");
    bool written = file != nullptr;
    for (uint32_t i = 0; written && i < request.count; ++i) {
        const Argument& argument = request.arguments[i];
        if (fusec_emulator_kernel.parameters[i].role == 'v' || argument.same_as >= 0) continue;
        written = fwrite(argument.data, 1, argument.bytes, file) == argument.bytes;
    }
    if (written && fclose(file) == 0) return 0;
    perror(path);
    return FAILED;
}

}  // namespace

int main(int count, char** words) {
    if (count == 2 && strcmp(words[1], "--signature") == 0) {
        static char text[16384];
        fusec_emulator_signature(&fusec_emulator_kernel, text, sizeof(text));
        puts(text);
        return 0;
    }
    if (count != 3) {
        fprintf(stderr, "usage: %s --signature | %s REQUEST RESULT\n", words[0], words[0]);
        return 2;
    }
    Request request{};
    read_request(words[1], request);
    const char* error = fusec_emulator_launch(&fusec_emulator_kernel, &request);
    if (error[0] != '\0') {
        fprintf(stderr, "%s\n", error);
        return FAILED;
    }
    return write_result(words[2], request);
}

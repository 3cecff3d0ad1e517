/* read.c: the limits of run.c in bench/engine.py: reading memory, reading a file. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

// The sum of floats (count) on a number of threads, `times` over: nothing but loads, and additions
// that do not wait for each other.
float read_memory(const float *floats, uint64_t count, int threads, int times)
{
    float total = 0;
    for (int time = 0; time < times; time++) {
        #pragma omp parallel for num_threads(threads) reduction(+ : total) if (threads > 1)
        for (int i = 0; i < threads; i++) {
            const uint64_t size = count / (uint64_t)threads;
            const float *part = floats + (uint64_t)i * size;
            float sum[64] = {0};
            for (uint64_t at = 0; at + 64 <= size; at += 64)
                for (int j = 0; j < 64; j++) sum[j] += part[at + (uint64_t)j];
            for (int j = 0; j < 64; j++) total += sum[j];
        }
    }
    return total;
}

// Bytes of a file that have been read into fresh memory
uint64_t read_file(const char *path, uint64_t size)
{
    char *bytes = malloc(size);
    FILE *file = fopen(path, "rb");
    const uint64_t got = file && bytes ? fread(bytes, 1, size, file) : 0;
    if (file) fclose(file);
    free(bytes);
    return got;
}

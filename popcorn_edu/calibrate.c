/* How far apart are two CPUs? Ping-pong over one cache line each way, three times: by polling, by a
 * blocking read (the kernel wakes the other side), and by copying 4 MiB. Prints one number a line,
 * in ns: "poll N", "wake N" (one way, mean of a batch), "copy N" (4 MiB).
 *
 *     cc -O2 calibrate.c -o calibrate && ./calibrate CPU_A CPU_B BATCHES
 */
#define _GNU_SOURCE
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 50, COPY_BYTES = 4 << 20, COPIES = 20 };

struct line {
    _Atomic uint64_t value;
    char pad[56];
};

static double now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e9 + t.tv_nsec;
}

static void pin(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set)) {
        perror("sched_setaffinity");
        exit(2);
    }
}

static void swap(int to, int from)
{
    uint64_t n = 1;
    if (write(to, &n, 8) != 8 || read(from, &n, 8) != 8)
        exit(3);
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 1;
    int a = atoi(argv[1]), b = atoi(argv[2]), batches = atoi(argv[3]);
    struct line *box = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    char *far = mmap(0, COPY_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int there = eventfd(0, 0), back = eventfd(0, 0);
    uint64_t total = (uint64_t)batches * BATCH, n;
    pid_t child = fork();
    if (!child) {
        pin(b);
        for (n = 1; n <= total; n++) {
            while (atomic_load_explicit(&box[0].value, memory_order_acquire) != n)
                ;
            atomic_store_explicit(&box[1].value, n, memory_order_release);
        }
        for (n = 0; n < total; n++) {
            uint64_t got;
            if (read(there, &got, 8) != 8)
                exit(3);
            got = 1;
            if (write(back, &got, 8) != 8)
                exit(3);
        }
        for (n = 1; n <= COPIES; n++) {
            memset(far, (int)n, COPY_BYTES);
            atomic_store(&box[2].value, n);
            while (atomic_load(&box[3].value) != n)
                ;
        }
        _exit(0);
    }
    pin(a);
    for (int batch = 0, k = 1; batch < batches; batch++) {
        double start = now_ns();
        for (int i = 0; i < BATCH; i++, k++) {
            atomic_store_explicit(&box[0].value, k, memory_order_release);
            while (atomic_load_explicit(&box[1].value, memory_order_acquire) != (uint64_t)k)
                ;
        }
        printf("poll %.1f\n", (now_ns() - start) / BATCH / 2);
    }
    for (int batch = 0; batch < batches; batch++) {
        double start = now_ns();
        for (int i = 0; i < BATCH; i++)
            swap(there, back);
        printf("wake %.1f\n", (now_ns() - start) / BATCH / 2);
    }
    char *near = malloc(COPY_BYTES);
    memset(near, 0, COPY_BYTES);
    for (n = 1; n <= COPIES; n++) {
        while (atomic_load(&box[2].value) != n)
            ;
        double start = now_ns();
        memcpy(near, far, COPY_BYTES);
        printf("copy %.1f\n", now_ns() - start + 0 * near[n]);
        atomic_store(&box[3].value, n);
    }
    waitpid(child, 0, 0);
    return 0;
}

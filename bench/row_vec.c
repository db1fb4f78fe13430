/* Double and single precision and bytes that the compiler vectorises; built with -O3. */
#include "row.h"

#include <string.h>

enum { LEN = 4096, DIM = 96 };

static double xs[LEN], ys[LEN];
static double ma[DIM][DIM], mb[DIM][DIM], mc[DIM][DIM];
static float fs[LEN], gs[LEN];
static uint8_t as[LEN], bs[LEN];

static void setup(void)
{
    uint64_t s = 1618033988749u;

    for (unsigned i = 0; i < LEN; i++) {
        xs[i] = (double)(row_random(&s) & 0xfff) / 4096.0;
        ys[i] = (double)(row_random(&s) & 0xfff) / 1024.0;
        fs[i] = (float)xs[i];
        gs[i] = (float)ys[i];
        as[i] = (uint8_t)row_random(&s);
        bs[i] = (uint8_t)row_random(&s);
    }
    for (unsigned i = 0; i < DIM; i++)
        for (unsigned j = 0; j < DIM; j++) {
            ma[i][j] = xs[(i * DIM + j) % LEN];
            mb[i][j] = ys[(i * DIM + j) % LEN];
        }
}

static __attribute__((noinline)) void daxpy(double *restrict y, const double *restrict x, double a)
{
    for (unsigned i = 0; i < LEN; i++)
        y[i] += a * x[i];
}

static uint64_t run_daxpy(unsigned long n)
{
    uint64_t check;

    for (unsigned long i = 0; i < n; i++)
        daxpy(ys, xs, i & 1 ? 0.5 : -0.5);
    memcpy(&check, &ys[LEN / 3], sizeof check);
    return check;
}

static __attribute__((noinline)) void multiply(void)
{
    memset(mc, 0, sizeof mc);
    for (unsigned i = 0; i < DIM; i++)
        for (unsigned k = 0; k < DIM; k++)
            for (unsigned j = 0; j < DIM; j++)
                mc[i][j] += ma[i][k] * mb[k][j];
}

static uint64_t run_matmul(unsigned long n)
{
    uint64_t check;

    while (n--) {
        multiply();
        ma[n % DIM][0] += mc[0][0] / 65536;
    }
    memcpy(&check, &mc[DIM / 2][DIM / 3], sizeof check);
    return check;
}

static __attribute__((noinline)) void blend(float *restrict g, const float *restrict f)
{
    for (unsigned i = 0; i < LEN; i++)
        g[i] = g[i] * 0.75f + f[i] * (1 - f[i]);
}

static uint64_t run_float(unsigned long n)
{
    uint32_t bits;

    while (n--)
        blend(gs, fs);
    memcpy(&bits, &gs[LEN / 3], sizeof bits);
    return bits;
}

/* As motion estimation and image filters do. */
static __attribute__((noinline)) uint64_t difference(const uint8_t *restrict a, const uint8_t *restrict b)
{
    uint32_t sum = 0;

    for (unsigned i = 0; i < LEN; i++)
        sum += (uint32_t)(a[i] > b[i] ? a[i] - b[i] : b[i] - a[i]);
    return sum;
}

static uint64_t run_bytes(unsigned long n)
{
    uint64_t sum = 0;

    while (n--) {
        sum += difference(as, bs);
        as[n % LEN] ^= (uint8_t)sum;
    }
    return sum;
}

const struct row rows_vec[] = {
    {"daxpy", 15000, run_daxpy, setup},
    {"matmul", 100, run_matmul, setup},
    {"vec-float", 10000, run_float, setup},
    {"vec-bytes", 60000, run_bytes, setup},
    {0},
};

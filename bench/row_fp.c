/* Scalar double precision: gravity of five bodies, and points of the Mandelbrot set. */
#include "row.h"

#include <math.h>
#include <string.h>

enum { BODIES = 5 };

static struct body {
    double x[3], v[3], mass;
} bodies[BODIES];

static void setup_bodies(void)
{
    uint64_t s = 271828182845u;

    for (unsigned i = 0; i < BODIES; i++) {
        for (unsigned k = 0; k < 3; k++) {
            bodies[i].x[k] = (double)(row_random(&s) & 0xffff) / 4096.0 - 8;
            bodies[i].v[k] = (double)(row_random(&s) & 0xffff) / 65536.0 - 0.5;
        }
        bodies[i].mass = i ? 0.01 * i : 40;
    }
}

static void attract(struct body *a, struct body *b, double dt)
{
    double dx = a->x[0] - b->x[0], dy = a->x[1] - b->x[1], dz = a->x[2] - b->x[2];
    double square = dx * dx + dy * dy + dz * dz + 0.01, force = dt / (square * sqrt(square));

    a->v[0] -= dx * b->mass * force;
    a->v[1] -= dy * b->mass * force;
    a->v[2] -= dz * b->mass * force;
    b->v[0] += dx * a->mass * force;
    b->v[1] += dy * a->mass * force;
    b->v[2] += dz * a->mass * force;
}

static uint64_t run_nbody(unsigned long n)
{
    const double dt = 0.001;
    uint64_t check;

    while (n--) {
        for (unsigned i = 0; i < BODIES; i++)
            for (unsigned j = i + 1; j < BODIES; j++)
                attract(&bodies[i], &bodies[j], dt);
        for (unsigned i = 0; i < BODIES; i++)
            for (unsigned k = 0; k < 3; k++)
                bodies[i].x[k] += dt * bodies[i].v[k];
    }
    memcpy(&check, &bodies[0].x[0], sizeof check);
    return check;
}

static unsigned escape(double cr, double ci)
{
    double r = 0, i = 0;
    unsigned n = 0;

    while (n < 256 && r * r + i * i < 4) {
        double t = r * r - i * i + cr;

        i = 2 * r * i + ci;
        r = t;
        n++;
    }
    return n;
}

static uint64_t run_mandel(unsigned long n)
{
    uint64_t sum = 0;

    for (unsigned long y = 0; y < n; y++)
        for (unsigned x = 0; x < 512; x++)
            sum += escape(-2 + x * (3.0 / 512), -1.5 + (double)(y % 512) * (3.0 / 512));
    return sum;
}

const struct row rows_fp[] = {
    {"nbody", 300000, run_nbody, setup_bodies},
    {"mandel", 1500, run_mandel, NULL},
    {0},
};

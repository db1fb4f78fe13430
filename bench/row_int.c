/* Integer work: a mix of what compilers emit, SHA-256 in plain C, and sorting. */
#include "row.h"

#include <stdlib.h>
#include <string.h>

enum { TABLE = 4096, SORT = 1 << 16 };

static uint32_t table[TABLE];
static int numbers[SORT];

static void setup_table(void)
{
    uint64_t s = 88172645463325252u;

    for (unsigned i = 0; i < TABLE; i++)
        table[i] = (uint32_t)row_random(&s);
}

/* Shifts, multiplication, a table, bytes, a branch that mostly goes one way, now and then a division. */
static uint64_t run_mix(unsigned long n)
{
    uint64_t a = 1, b = 0x123456789abcdef, sum = 0;
    const unsigned char *bytes = (const unsigned char *)table;

    for (unsigned long i = 0; i < n; i++) {
        a = a * 6364136223846793005u + 1442695040888963407u;
        b ^= a >> 33;
        b = b << 11 | b >> 53;
        sum += table[a >> 50 & (TABLE - 1)] ^ bytes[b & (sizeof table - 1)];
        if (!(a >> 60))
            sum = (sum << 3) - (uint32_t)b;
        if (!(i & 31))
            sum += a / ((b & 0xffff) + 1);
        table[i & (TABLE - 1)] += (uint32_t)sum;
        sum += (uint64_t)__builtin_ctzll(b | 1 << 20) + ((a & b) >> (i & 7));
    }
    return row_mix(a ^ b, sum);
}

/* SHA-256 (FIPS 180-4) */

static uint32_t sha_k[64], sha_h[8];

/* The constants are the fractions of roots of primes: 32 bits of them, by integer search. */
static uint32_t root_fraction(unsigned prime, int cube)
{
    unsigned __int128 goal = (unsigned __int128)prime << (cube ? 96 : 64);
    unsigned __int128 low = 0, high = (unsigned __int128)1 << 40;

    while (high - low > 1) {
        unsigned __int128 m = (low + high) / 2, square = m * m;

        if (cube ? square > goal / m : square > goal)
            high = m;
        else
            low = m;
    }
    return (uint32_t)low;
}

static void setup_sha(void)
{
    unsigned found = 0;

    for (unsigned p = 2; found < 64; p++) {
        unsigned d = 2;

        while (d * d <= p && p % d)
            d++;
        if (d * d <= p)
            continue;
        if (found < 8)
            sha_h[found] = root_fraction(p, 0);
        sha_k[found++] = root_fraction(p, 1);
    }
}

#define ROR(x, n) ((x) >> (n) | (x) << (32 - (n)))

static uint32_t sha_word(const unsigned char *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void sha_block(uint32_t *state, const unsigned char *p)
{
    uint32_t w[64], s[8];

    for (unsigned i = 0; i < 16; i++)
        w[i] = sha_word(p + 4 * i);
    for (unsigned i = 16; i < 64; i++) {
        uint32_t x = w[i - 15], y = w[i - 2];

        w[i] = w[i - 16] + (ROR(x, 7) ^ ROR(x, 18) ^ x >> 3) + w[i - 7] + (ROR(y, 17) ^ ROR(y, 19) ^ y >> 10);
    }
    memcpy(s, state, sizeof s);
    for (unsigned i = 0; i < 64; i++) {
        uint32_t t1 = s[7] + (ROR(s[4], 6) ^ ROR(s[4], 11) ^ ROR(s[4], 25)) +
                      ((s[4] & s[5]) ^ (~s[4] & s[6])) + sha_k[i] + w[i];
        uint32_t t2 = (ROR(s[0], 2) ^ ROR(s[0], 13) ^ ROR(s[0], 22)) +
                      ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));

        s[7] = s[6];
        s[6] = s[5];
        s[5] = s[4];
        s[4] = s[3] + t1;
        s[3] = s[2];
        s[2] = s[1];
        s[1] = s[0];
        s[0] = t1 + t2;
    }
    for (unsigned i = 0; i < 8; i++)
        state[i] += s[i];
}

static uint64_t run_sha(unsigned long n)
{
    static unsigned char data[4096];
    uint32_t state[8];

    memcpy(state, sha_h, sizeof state);
    for (unsigned long i = 0; i < n; i++)
        sha_block(state, data + 64 * (i % 64));
    return (uint64_t)state[0] << 32 | state[7];
}

static int compare(const void *a, const void *b)
{
    int x = *(const int *)a, y = *(const int *)b;

    return (x > y) - (x < y);
}

static void fill_numbers(uint64_t *state)
{
    for (unsigned i = 0; i < SORT; i++)
        numbers[i] = (int)row_random(state);
}

static void quicksort(int *a, long n)
{
    while (n > 12) {
        int pivot = a[n / 2];
        long i = 0, j = n - 1;

        while (i <= j) {
            while (a[i] < pivot)
                i++;
            while (a[j] > pivot)
                j--;
            if (i <= j) {
                int t = a[i];

                a[i++] = a[j];
                a[j--] = t;
            }
        }
        quicksort(a, j + 1);
        a += i;
        n -= i;
    }
    for (long i = 1; i < n; i++) {
        int v = a[i];
        long j = i;

        for (; j > 0 && a[j - 1] > v; j--)
            a[j] = a[j - 1];
        a[j] = v;
    }
}

static uint64_t run_sort(unsigned long n)
{
    uint64_t state = 42, check = 0;

    while (n--) {
        fill_numbers(&state);
        quicksort(numbers, SORT);
        check = row_mix(check, (uint64_t)numbers[SORT / 3]);
    }
    return check;
}

/* The library's, with a comparison through a pointer. */
static uint64_t run_qsort(unsigned long n)
{
    uint64_t state = 43, check = 0;

    while (n--) {
        fill_numbers(&state);
        qsort(numbers, SORT, sizeof *numbers, compare);
        check = row_mix(check, (uint64_t)numbers[SORT / 3]);
    }
    return check;
}

const struct row rows_int[] = {
    {"int-mix", 20000000, run_mix, setup_table},
    {"sha256-c", 500000, run_sha, setup_sha},
    {"sort", 50, run_sort, NULL},
    {"qsort", 20, run_qsort, NULL},
    {0},
};

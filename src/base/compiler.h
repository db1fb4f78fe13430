/*
 * The GNU extensions that the rest of the tree leans on, under names of our own.
 */
#ifndef ARMLET_BASE_COMPILER_H
#define ARMLET_BASE_COMPILER_H

#define likely(x)   __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/* The function's FMT-th parameter is a printf format whose arguments start at the ARGS-th (0: a va_list). */
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))

#define NORETURN      __attribute__((noreturn))
#define COLD          __attribute__((cold, noinline))
#define MUST_USE      __attribute__((warn_unused_result))
#define UNUSED        __attribute__((unused))
#define ALWAYS_INLINE inline __attribute__((always_inline))
#define PACKED        __attribute__((packed))
#define FALLTHROUGH   __attribute__((fallthrough))

/* Elements of a true array; a pointer does not compile. */
#define ARRAY_LEN(a)                                                                                                   \
    (sizeof(a) / sizeof((a)[0]) +                                                                                      \
     0 * sizeof(char[1 - 2 * __builtin_types_compatible_p(__typeof__(a), __typeof__(&(a)[0]))]))

/* The struct of which `ptr' points to the member `member'. */
#define CONTAINER_OF(ptr, type, member) ((type *)((char *)(ptr) - __builtin_offsetof(type, member)))

#endif

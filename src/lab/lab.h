/*
 * Real inputs for the machine: Debian's arm64 kernels and busybox, fetched without privileges, and initial
 * file systems made of them.  Everything is kept under $XDG_CACHE_HOME/armlet (~/.cache/armlet) and can be
 * deleted at any time; several processes may use it at once.  What is in the cache is used without asking the
 * network.
 *
 * All functions may block for as long as a download takes, and show progress on stderr.  On failure they
 * return false or NULL and set `err' to one line that says what to do.
 */
#ifndef ARMLET_LAB_LAB_H
#define ARMLET_LAB_LAB_H

#include <stdbool.h>

#include <glib.h>

enum lab_error {
    LAB_ERROR_TOOL,      /* a program that we need is not installed */
    LAB_ERROR_NETWORK,   /* the mirror cannot be reached */
    LAB_ERROR_SPACE,     /* the cache's file system is full */
    LAB_ERROR_NOT_FOUND, /* no such series, package, module or file */
    LAB_ERROR_IO,
    LAB_ERROR_FAILED,
};
#define LAB_ERROR lab_error_quark()
GQuark lab_error_quark(void);

/*
 * The series to be had, newest last, ending in NULL; and the one that is fetched when nothing is asked for.
 */
extern const char *const lab_kernel_series[];
#define LAB_DEFAULT_SERIES "6.1"

struct lab_kernel {
    char *series;     /* "6.1" */
    char *release;    /* as `uname -r' says it: "6.1.0-42-arm64" */
    char *version;    /* Debian's package version */
    char *image;      /* paths: the kernel as packaged, a raw Image or an EFI zboot one */
    char *config;     /* no System.map: Debian ships an empty one */
    char *modules;    /* the folder lib/modules/RELEASE */
};
void lab_kernel_clear(struct lab_kernel *k);

/*
 * The kernel of `series' ("6.1", "6.12"): the newest in the cache, or else Debian's newest, fetched.  A NULL
 * series is the newest of any series in the cache, or else LAB_DEFAULT_SERIES.  With `refresh' the mirror is
 * asked first.
 */
bool lab_kernel_get(const char *series, bool refresh, struct lab_kernel *out, GError **err);

/* The path of the vmlinux with debug symbols of one of Debian's kernels, fetched if need be; g_free() it. */
char *lab_kernel_debug(const struct lab_kernel *k, GError **err);

/* Unpacks the headers that modules are built against, for this kernel, into the folder `into' (lib, usr). */
bool lab_kernel_headers(const struct lab_kernel *k, const char *into, GError **err);

/* The kernels in the cache, oldest first: struct lab_kernel *, owned by the array. */
GPtrArray *lab_kernel_list(void);

/* The path of a static arm64 busybox; g_free() it. */
char *lab_busybox_get(GError **err);

/* A file to put into an initramfs. */
struct lab_file {
    const char *guest; /* absolute path in the guest; parent folders are made */
    const char *host;  /* a regular file, whose execute permission is kept */
};

struct lab_initramfs {
    const struct lab_kernel *kernel; /* whose modules to take; may be NULL when `modules' is */
    const char *const *modules;      /* names to load at boot, ending in NULL; what they depend on is added,
                                        built-in ones are left out; NULL for none */
    const char *const *late;         /* likewise, loaded only when a directory is shared (armlet.share= on the
                                        kernel's command line, or the agent's job); without `modules' none */
    const struct lab_file *files;    /* added last: they replace ours of the same path */
    unsigned nfiles;
    bool nfs_root; /* /init loads the modules, mounts the root that root= (a disk, or /dev/nfs after setting
                      up the network) and nfsroot= of the kernel's command line say, and goes on there: for
                      kernels that have these things as modules */
    bool agent; /* /init runs a command for `armlet run' (agent.sh) instead of a shell on the console */
};

/* The modules that drive this machine's devices, for struct lab_initramfs. */
extern const char *const lab_virtio_modules[];
/* etc/profile of our roots. */
extern const char lab_profile[];
/* Those and what nfs_root needs. */
extern const char *const lab_nfs_modules[], *const lab_disk_modules[];

/* Those that the agent needs, and those of a directory shared by 9p. */
extern const char *const lab_agent_modules[], *const lab_share_modules[];

/*
 * The path of an uncompressed cpio archive with busybox, its applets, and two ways to start: /init, which
 * ends in a shell on the console, and /linuxrc (rdinit=/linuxrc), which follows etc/inittab.  Equal wishes
 * give the same file.  `what' may be NULL.  g_free() the result.
 */
char *lab_initramfs_busybox(const struct lab_initramfs *what, GError **err);

#endif

/*
 * Kernels built from Debian's source with the cross compiler, kept in the cache by what they are made of.
 */
#ifndef ARMLET_LAB_KBUILD_H
#define ARMLET_LAB_KBUILD_H

#include <stdbool.h>

#include <glib.h>

/*
 * The path of an Image built from linux-source-6.1 with allnoconfig and the lines of `fragment' (NULL:
 * lab_article_config); beside it are config, System.map and vmlinux.  Built unless a kernel of the same
 * fragment, source and compiler is there, which takes minutes and shows progress on stderr.  An option of the
 * fragment that the kernel does not take is an error that names it.  g_free() it; NULL: err says why, in one
 * line.
 */
char *lab_kernel_build(const char *fragment, GError **err);

/*
 * The smallest kernel that has this machine's devices, and its root over NFS: about five minutes on two
 * cores.
 */
extern const char lab_article_config[];

/* The folder of Debian's linux-source-6.1, fetched and unpacked if need be; g_free() it. */
char *lab_kernel_source(GError **err);

/*
 * A build of a source tree, out of tree, in a folder of the cache that stays: the next one builds what has
 * changed.
 */
struct lab_build {
    const char *source;   /* the tree */
    bool defconfig;       /* start from defconfig without what the board lacks; else from allnoconfig */
    const char *fragment; /* lines for the configuration, added last; NULL: none */
    const char *config;   /* a whole configuration instead of all that; NULL: none */
    bool configure_only;
};

/* The path of the Image, or with configure_only of .config.  g_free() it; NULL: err says why. */
char *lab_tree_build(const struct lab_build *build, GError **err);

/* The lines that lab_tree_build() puts on top of defconfig, or (lab_article_config) of allnoconfig. */
extern const char lab_defconfig_fragment[];

#endif

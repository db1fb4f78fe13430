/*
 * What is mounted where, in the name space of the first process: the tree of struct mounts from its root on.
 */
#include <string.h>

#include "kernel/guts.h"

enum { MOUNTS_MAX = 4096, DEPTH_MAX = 64, NAME_MAX_BYTES = 255, SB_RDONLY = 1, MNT_READONLY = 0x40 };

struct mount_layout {
    struct btf_field parent, point, root, super, flags, children, child, device, name, dentry_parent, type, type_name,
        sb_flags;
};

static void layout_find(struct kernel *k, struct mount_layout *l)
{
#define MOUNT(path) kernel_field(k, "mount", path)
    *l = (struct mount_layout){
        .parent = MOUNT("mnt_parent"), .point = MOUNT("mnt_mountpoint"), .root = MOUNT("mnt.mnt_root"),
        .super = MOUNT("mnt.mnt_sb"), .flags = MOUNT("mnt.mnt_flags"), .children = MOUNT("mnt_mounts"),
        .child = MOUNT("mnt_child"), .device = MOUNT("mnt_devname"), .name = kernel_field(k, "dentry", "d_name.name"),
        .dentry_parent = kernel_field(k, "dentry", "d_parent"), .type = kernel_field(k, "super_block", "s_type"),
        .type_name = kernel_field(k, "file_system_type", "name"), .sb_flags = kernel_field(k, "super_block", "s_flags") };
#undef MOUNT
}

/* Puts the names from the mount up to the root of all before what stands in path. */
static void prepend_path(struct kernel *k, const struct mount_layout *l, uint64_t mount, GString *path)
{
    for (unsigned depth = 0; depth < DEPTH_MAX; depth++) {
        uint64_t parent = kernel_get(k, mount, l->parent), dentry = kernel_get(k, mount, l->point);
        if (!parent || parent == mount)
            return;
        uint64_t top = kernel_get(k, parent, l->root);
        for (unsigned i = 0; i < DEPTH_MAX && dentry && dentry != top; i++) {
            g_autofree char *name = kernel_string(k, kernel_get(k, dentry, l->name), NAME_MAX_BYTES);
            uint64_t up = kernel_get(k, dentry, l->dentry_parent);
            if (!name || up == dentry)
                break;
            g_string_prepend(path, name);
            g_string_prepend_c(path, '/');
            dentry = up;
        }
        mount = parent;
    }
}

static void print_flags(struct kernel *k, const struct mount_layout *l, uint64_t mount, GString *out)
{
    static const char *const names[] = { "nosuid", "nodev", "noexec", "noatime", "nodiratime", "relatime" };
    uint64_t flags = kernel_get(k, mount, l->flags), super = kernel_get(k, kernel_get(k, mount, l->super), l->sb_flags);

    g_string_append_printf(out, "(%s", flags & MNT_READONLY || super & SB_RDONLY ? "ro" : "rw");
    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++)
        if (flags >> i & 1)
            g_string_append_printf(out, ",%s", names[i]);
    g_string_append(out, ")\n");
}

static void print_mount(struct kernel *k, const struct mount_layout *l, uint64_t mount, GString *out)
{
    uint64_t type = kernel_get(k, kernel_get(k, mount, l->super), l->type);
    g_autofree char *device = kernel_string(k, kernel_get(k, mount, l->device), NAME_MAX_BYTES);
    g_autofree char *fs = kernel_string(k, kernel_get(k, type, l->type_name), 64);
    GString *path = g_string_new(NULL);

    prepend_path(k, l, mount, path);
    g_string_append_printf(out, "%s on %s type %s ", device && *device ? device : "none", path->len ? path->str : "/",
                           fs ? fs : "?");
    print_flags(k, l, mount, out);
    g_string_free(path, TRUE);
}

/* The mount, then what is mounted on it. */
static void print_tree(struct kernel *k, const struct mount_layout *l, uint64_t mount, unsigned depth, unsigned *n,
                       GString *out)
{
    uint64_t head = mount + l->children.off, at;

    if (depth > DEPTH_MAX || ++*n > MOUNTS_MAX)
        return;
    print_mount(k, l, mount, out);
    if (!kernel_read(k, head, &at, 8))
        return;
    while (at != head && *n <= MOUNTS_MAX) {
        print_tree(k, l, at - l->child.off, depth + 1, n, out);
        if (!kernel_read(k, at, &at, 8))
            return;
    }
}

static uint64_t first_root(struct kernel *k)
{
    GArray *tasks = kernel_tasks(k, false);
    uint64_t root = 0;

    for (guint i = 0; tasks && i < tasks->len && !root; i++) {
        const struct kernel_task *t = &g_array_index(tasks, struct kernel_task, i);
        uint64_t proxy = t->pid == 1 ? kernel_get(k, t->va, kernel_field(k, "task_struct", "nsproxy")) : 0;
        uint64_t space = kernel_get(k, proxy, kernel_field(k, "nsproxy", "mnt_ns"));
        root = kernel_get(k, space, kernel_field(k, "mnt_namespace", "root"));
    }
    if (tasks)
        g_array_free(tasks, TRUE);
    return root;
}

void kernel_print_mounts(struct kernel *k, GString *out)
{
    struct mount_layout l;
    unsigned n = 0;

    if (!kernel_ready(k, out))
        return;
    layout_find(k, &l);
    uint64_t root = first_root(k);
    if (root && l.children.size && l.child.size)
        print_tree(k, &l, root, 0, &n, out);
    else
        g_string_append(out, "nothing is mounted yet\n");
}

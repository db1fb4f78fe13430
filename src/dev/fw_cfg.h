/*
 * The firmware configuration interface of QEMU's boards: named blobs from the host, for firmware and the
 * curious.
 */
#ifndef ARMLET_DEV_FW_CFG_H
#define ARMLET_DEV_FW_CFG_H

#include "dev/device.h"

enum fw_cfg_key {
    FW_CFG_SIGNATURE = 0x00,
    FW_CFG_ID = 0x01,
    FW_CFG_UUID = 0x02,
    FW_CFG_RAM_SIZE = 0x03,
    FW_CFG_NOGRAPHIC = 0x04,
    FW_CFG_NB_CPUS = 0x05,
    FW_CFG_MACHINE_ID = 0x06,
    FW_CFG_KERNEL_ADDR = 0x07,
    FW_CFG_KERNEL_SIZE = 0x08,
    FW_CFG_KERNEL_CMDLINE = 0x09,
    FW_CFG_INITRD_ADDR = 0x0a,
    FW_CFG_INITRD_SIZE = 0x0b,
    FW_CFG_BOOT_DEVICE = 0x0c,
    FW_CFG_NUMA = 0x0d,
    FW_CFG_BOOT_MENU = 0x0e,
    FW_CFG_MAX_CPUS = 0x0f,
    FW_CFG_KERNEL_ENTRY = 0x10,
    FW_CFG_KERNEL_DATA = 0x11,
    FW_CFG_INITRD_DATA = 0x12,
    FW_CFG_CMDLINE_ADDR = 0x13,
    FW_CFG_CMDLINE_SIZE = 0x14,
    FW_CFG_CMDLINE_DATA = 0x15,
    FW_CFG_SETUP_ADDR = 0x16,
    FW_CFG_SETUP_SIZE = 0x17,
    FW_CFG_SETUP_DATA = 0x18,
    FW_CFG_FILE_DIR = 0x19,
    FW_CFG_FILE_FIRST = 0x20
};

enum { FW_CFG_MAX_FILES = 64, FW_CFG_MAX_NAME = 55 };

/* mem is for the DMA interface; it stays the caller's and must outlive the device. */
struct device *fw_cfg_new(GMutex *lock, struct mem *mem);

/*
 * All of these are for before the machine runs. Data is copied; numbers are little-endian in the guest's
 * view.
 */
void fw_cfg_add_bytes(struct device *fw, enum fw_cfg_key key, const void *data, uint32_t len);
void fw_cfg_add_string(struct device *fw, enum fw_cfg_key key, const char *s); /* with its terminating zero */
void fw_cfg_add_u16(struct device *fw, enum fw_cfg_key key, uint16_t value);
void fw_cfg_add_u32(struct device *fw, enum fw_cfg_key key, uint32_t value);
void fw_cfg_add_u64(struct device *fw, enum fw_cfg_key key, uint64_t value);

/*
 * Adds a file, or replaces the one of this name. Returns 0; -ENAMETOOLONG for more than FW_CFG_MAX_NAME bytes
 * of name; -ENOSPC when there are FW_CFG_MAX_FILES; -EFBIG for 2^32 bytes or more.
 */
int fw_cfg_add_file(struct device *fw, const char *name, const void *data, size_t len);

#endif

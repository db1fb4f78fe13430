/*
 * The vector operations by number, for engines that call them through a pointer.  Constant.
 */
#include "cpu/vec.h"

#define ENTRY(name) [WOP_##name] = vec_##name,
#define WOP1(name, effects) ENTRY(name)
#define WOP2(name, effects) ENTRY(name)
#define WOP3(name, effects) ENTRY(name)
#define WOPI1(name, effects) ENTRY(name)
#define WOPI2(name, effects) ENTRY(name)
#define WOPI3(name, effects) ENTRY(name)

vec_fn *const vec_table[N_WOPS] = {
#include "isa/wops.def"
};

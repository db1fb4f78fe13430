#include "jit/emit.h"
bool emit_fp(struct emit *e, const struct ir *ir) { (void)e; (void)ir; return false; }
bool emit_fcmp(struct emit *e, const struct ir *ir) { (void)e; (void)ir; return false; }

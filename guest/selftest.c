#include "kernel.h"
#include "virtio.h"
int selftest(struct disk *d){ printf("1..1\n%sok 1 - read\n", blk_do(d, BLK_IN, 0, 512, DIRECT) ? "not " : ""); return 0; }
int reset_under_io(struct disk *d, u32 r){ (void)d; (void)r; return 1; }

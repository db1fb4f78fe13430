/*
 * Init that inserts the kernel's own test_bpf.ko and reports its three summaries: the BPF JIT of the kernel writes code
 * and runs it at once, thousands of times.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/klog.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { READ_ALL = 3, LOG_SIZE = 8 << 20 };

static void insert(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || syscall(SYS_finit_module, fd, "", 0))
        perror(path); /* what failed is in the log */
}

int main(void)
{
    static char log[LOG_SIZE + 1];
    unsigned passed = 0, failed = 0, summaries = 0, p, f;
    int n;

    insert("/test_bpf.ko");
    n = klogctl(READ_ALL, log, LOG_SIZE);
    log[n < 0 ? 0 : n] = 0;
    for (char *line = strtok(log, "\n"); line; line = strtok(NULL, "\n")) {
        char *summary = strstr(line, "Summary: ");
        if (strstr(line, "test_bpf") && (strstr(line, "FAIL") && !summary))
            printf("FAIL %s\n", line);
        if (summary && sscanf(summary, "Summary: %u PASSED, %u FAILED", &p, &f) == 2) {
            printf("%s\n", line);
            passed += p, failed += f, summaries++;
        }
    }
    if (summaries != 3) {
        printf("FAIL %u summaries instead of 3\n", summaries);
        failed++;
    }
    printf("%u passed, %u failed\n", passed, failed);
    reboot(RB_POWER_OFF);
    return 1;
}

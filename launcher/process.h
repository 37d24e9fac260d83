/* What every part of the launcher does: fail with a reason, and say which process a pid is. */
#ifndef ROOST_LAUNCHER_PROCESS_H
#define ROOST_LAUNCHER_PROCESS_H

#include <stddef.h>
#include <sys/types.h>

/* Prints errno's text behind it, and exits. */
__attribute__((noreturn, format(printf, 1, 2))) void fail(const char *format, ...);

void write_text(const char *path, const char *text);

/* `PID STARTTICKS BOOTID` and a newline, which says which process it is, even after a pid was used again. */
size_t identity_line(pid_t pid, char *line, size_t size);

/* Be killed when this process, the parent, ends. */
void die_with(pid_t parent);

#endif

/* What every part of the launcher does: fail with a reason, and say which process a pid is. The warden does so too. */
#ifndef ROOST_LAUNCHER_PROCESS_H
#define ROOST_LAUNCHER_PROCESS_H

#include <stddef.h>
#include <sys/types.h>

/* Exit codes, as env(1) and its like have them. */
#define EXIT_LAUNCH_FAILED 125
#define EXIT_NOT_EXECUTABLE 126
#define EXIT_NOT_FOUND 127

/* Begins every message; each program has its own. */
extern const char program_name[];

/* Prints errno's text behind it, and exits. */
__attribute__((noreturn, format(printf, 1, 2))) void fail(const char *format, ...);

void write_text(const char *path, const char *text);

/* `PID STARTTICKS BOOTID` and a newline, which says which process it is, even after a pid was used again. */
size_t identity_line(pid_t pid, char *line, size_t size);

/* Be killed when this process, the parent, ends. */
void die_with(pid_t parent);

#endif

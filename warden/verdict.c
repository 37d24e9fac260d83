/* See verdict.h. */
#include "verdict.h"

#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>

static const struct verdict failed = {.is_failure = true, .reason = "host-error"};
static const struct verdict killed = {.reason = "host-signal"};
static const struct verdict asked = {.reason = "host-qmp-quit"};
static const struct verdict shut_down = {.guest = true, .reason = "guest-shutdown"};
static const struct verdict panicked = {.guest = true, .reason = "guest-panic"};

bool is_orderly(const struct evidence *evidence)
{
    return evidence->is_started && WIFEXITED(evidence->starter_status) && WEXITSTATUS(evidence->starter_status) == 0;
}

static bool is_somebodys(int signal)
{
    return signal == SIGKILL || signal == SIGTERM || signal == SIGINT || signal == SIGHUP || signal == SIGQUIT;
}

static struct verdict judge_init(struct ending how)
{
    if (!how.by_signal)
        return how.number == 0 ? shut_down : panicked;
    /* Nobody inside can do that to an init. */
    if (how.number == SIGKILL)
        return killed;
    /* What reboot(2) ends an init with that powers off (pid_namespaces(7)). */
    return how.number == SIGINT ? shut_down : panicked;
}

struct verdict judge(const struct evidence *evidence)
{
    int status = evidence->starter_status;

    if (evidence->wanted == QUIT)
        return asked;
    if (evidence->wanted == SIGNAL)
        return killed;
    if (WIFSIGNALED(status))
        return is_somebodys(WTERMSIG(status)) ? killed : failed;
    return is_orderly(evidence) ? judge_init(ending_of(evidence)) : failed;
}

struct ending ending_of(const struct evidence *evidence)
{
    int status = evidence->starter_status;

    if (evidence->is_ended)
        return evidence->how;
    return (struct ending){
        .by_signal = WIFSIGNALED(status),
        .number = WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status),
    };
}

void describe_failure(const struct evidence *evidence, const char *complaint, char *words, size_t size)
{
    int status = evidence->starter_status;

    (void)snprintf(words, size, "lxc-start ended %s %d %s%s%s", WIFSIGNALED(status) ? "by signal" : "with status",
                   WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status),
                   evidence->is_started ? "under the container" : "before the container ran",
                   complaint[0] != '\0' ? ": " : "", complaint);
}

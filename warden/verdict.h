/* Why a container ended, from what is known of it. Pure. */
#ifndef ROOST_WARDEN_VERDICT_H
#define ROOST_WARDEN_VERDICT_H

#include "lxc-log.h"

#include <stdbool.h>
#include <stddef.h>

/* What somebody asked for, who then killed the init. */
enum wanted { NOTHING, RESET, QUIT, SIGNAL };

struct evidence {
    enum wanted wanted;
    int starter_status; /* of lxc-start, as wait(2) has it */
    bool is_started;    /* an init was executed */
    bool is_ended;      /* the log has how it ended; with status 0 it has not */
    struct ending how;
};

/* Whether the container did it itself, and why, in the words of QEMU's ShutdownCause. */
struct verdict {
    bool guest, is_failure;
    const char *reason;
};

/* Whether lxc-start ended as it does when a container has. */
bool is_orderly(const struct evidence *evidence);

struct verdict judge(const struct evidence *evidence);

/* How the init ended; lxc-start, where that is not known. */
struct ending ending_of(const struct evidence *evidence);

/* What failed, for people. */
void describe_failure(const struct evidence *evidence, const char *complaint, char *words, size_t size);

#endif

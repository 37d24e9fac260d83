/*
 * The line to whoever manages the container, in the envelope of QMP: commands and their answers, and events, which are in the
 * event log before they are told on the line.
 */
#ifndef ROOST_WARDEN_MONITOR_H
#define ROOST_WARDEN_MONITOR_H

#include "json.h"

#include <stdbool.h>
#include <stdint.h>

#define LONGEST_ID 256

/* Who waits for an answer. */
struct asker {
    uint64_t client;  /* which of all; 0: nobody waits */
    size_t id_length; /* 0: there was none */
    char id[LONGEST_ID];
};

void monitor_open(void);

/* Answers the asker, who waits no more; nobody is told where the client is gone. `value` is JSON, `{}` if NULL. */
void answer(struct asker *asker, const char *value);
__attribute__((format(printf, 3, 4))) void refuse(struct asker *asker, const char *class, const char *format, ...);

#define GENERIC "GenericError"
#define NOT_FOUND "CommandNotFound"

/* `data` is the text of an object, or NULL. */
__attribute__((format(printf, 2, 3))) void tell(const char *event, const char *data, ...);

/* Gives the client what still waits for it, as far as it takes it at once. */
void monitor_close(void);

/* The descriptor that came last with a command and was not taken; -1: none. It is the caller's then. */
int take_passed(void);

/* In commands.c. */
void do_command(struct text name, struct text arguments, struct asker *asker);

#endif

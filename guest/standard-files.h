/* Standard input, output and error of a program: pipes, a terminal or nothing, and the agent's ends of them.
 */
#ifndef ROOST_GUEST_STANDARD_FILES_H
#define ROOST_GUEST_STANDARD_FILES_H

#include "fields.h"

#include <stdbool.h>

/* In the order of the descriptors. */
#define STREAM_COUNT 3

/* Descriptors of both ends; -1 where there is none. */
struct ends {
    int program[STREAM_COUNT];
    int agent[STREAM_COUNT];
    int status[2];
};

/* Opens what an EXEC request wants; the streams that the host wants are in `wanted`. False with errno. */
bool open_ends(struct ends *ends, const struct fields *request, const bool *wanted);

/* Closes those that are not taken over: those are -1. */
void close_ends(struct ends *ends);

/* A TERMINAL field on a terminal. */
void set_terminal_size(int terminal, const struct field *size);

#endif

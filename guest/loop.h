/* The one loop of the agent: tells of descriptors on which something happened, by edges. */
#ifndef ROOST_GUEST_LOOP_H
#define ROOST_GUEST_LOOP_H

#include <stdbool.h>
#include <stdint.h>

/* A descriptor and what to do when it becomes ready; lies in whatever it belongs to. */
struct watch {
    int fd; /* -1: none */
    void (*ready)(struct watch *watch, uint32_t events);
};

#define CONTAINER_OF(pointer, type, member) ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

/* False, with errno, if the loop cannot be made. */
bool loop_open(void);

/* Watches a descriptor, which becomes the watch's own. False with errno; the descriptor is then closed. */
bool loop_add(struct watch *watch, int fd, uint32_t events,
              void (*ready)(struct watch *watch, uint32_t events));

/* Closes the descriptor. What was seen of it already is not told any more. */
void loop_close(struct watch *watch);

/* Runs `work` before each wait, until it says that the end has come. It says whether it can do more at once.
 */
enum work { WORK_DONE, WORK_MORE, WORK_STOP };
void loop_run(enum work (*work)(void));

#endif

/* The one loop of the warden: descriptors that something is awaited of, and times. */
#ifndef ROOST_WARDEN_LOOP_H
#define ROOST_WARDEN_LOOP_H

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>

/* What a descriptor is waited for; lies in whoever it belongs to, who may change it at any time. */
struct watch {
    int fd; /* -1: none */
    short events;
    void (*ready)(short happened);
};

struct alarm {
    int64_t due; /* in milliseconds of now_ms(); 0: never */
    void (*ring)(void);
};

void loop_watch(struct watch *watch);
void loop_alarm(struct alarm *alarm);

/* Closes the descriptor, where there is one. */
void watch_close(struct watch *watch);

int64_t now_ms(void);

/* Until somebody says that it is over. */
void loop_run(void);
void loop_end(void);

#endif

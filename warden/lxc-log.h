/* liblxc's log, which is the only place where it says how a container's init ended. */
#ifndef ROOST_WARDEN_LXC_LOG_H
#define ROOST_WARDEN_LXC_LOG_H

#include <stdbool.h>
#include <sys/types.h>

/* How a process ended. */
struct ending {
    bool by_signal;
    int number; /* of the signal, or the status */
};

/* Told in the order of the log. */
struct log_reader {
    /* The init is executed; the pid is the host's. */
    void (*started)(pid_t init);
    void (*ended)(struct ending ending);
    /* It asked for a reboot by ending. */
    void (*rebooting)(void);
};

/* Begins the log anew. */
void lxc_log_open(const char *path, const struct log_reader *reader);

/* Reads what is there now. */
void lxc_log_read(void);

/* The first complaint of this run; empty if there is none. */
const char *lxc_log_complaint(void);

/* Another run begins. */
void lxc_log_forget(void);

#endif

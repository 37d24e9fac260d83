/* An lxc-start before it is wanted: a child that is in its group already. */
#ifndef ROOST_WARDEN_STANDING_H
#define ROOST_WARDEN_STANDING_H

#include <sys/types.h>

/* Has one stand by that will be this command line; it is sent away when the warden exits without it. */
void stand_by(char *const *line);

/* It, or a new one where none stands by, becomes lxc-start. */
pid_t begin_standing(char *const *line);

/* It never becomes lxc-start. */
void dismiss_standing(void);

/* A child ended; if it is that one, the next is made when it is wanted, and fails for all to see if it has to. */
void standing_ended(pid_t child);

#endif

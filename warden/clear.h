/* What becomes of a container whose warden is gone. */
#ifndef ROOST_WARDEN_CLEAR_H
#define ROOST_WARDEN_CLEAR_H

/* Ends every process in the groups below the name, frozen ones too, and removes the groups; the exit status. `after`: once the
 * process of that descriptor is gone; -1: at once. */
int clear_groups(const char *name, int after);

#endif

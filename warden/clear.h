/* What becomes of a container whose warden is gone. */
#ifndef ROOST_WARDEN_CLEAR_H
#define ROOST_WARDEN_CLEAR_H

/* Ends every process in the groups below the name, frozen ones too, and removes the groups; the exit status. */
int clear_groups(const char *name);

#endif

/* The 8254 of a PC. */
#ifndef ROOST_GUEST_INTERVAL_TIMER_H
#define ROOST_GUEST_INTERVAL_TIMER_H

/* Stops counter 0, unless it is what the kernel keeps time by. To be called once /sys is mounted. */
void rest_interval_timer(void);

#endif

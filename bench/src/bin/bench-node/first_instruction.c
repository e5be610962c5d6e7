/* The program of the start-latency figure: says at once when its first instruction ran (monotonic
 * clock, nanoseconds), then stays until the other side hangs up or SIGTERM arrives. Static. */
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static void leave(int signal_number) {
    (void)signal_number;
    _exit(0);
}

int main(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    unsigned long long ns = now.tv_sec * 1000000000ULL + now.tv_nsec;
    signal(SIGTERM, leave);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, "/bench/first.sock");
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) != 0) return 1;
    if (write(fd, &ns, sizeof ns) != sizeof ns) return 2;
    char byte;
    while (read(fd, &byte, 1) > 0) {
    }
    return 0;
}

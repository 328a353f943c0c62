/* Three functions of OpenSSL 1.1 that OpenSSL 3 has as macros: .NET Core 3.1 looks them up by name before it computes
   a hash, and its compiler hashes the name of each assembly. */
#include <stddef.h>

int EVP_MD_get_size(const void *digest);
void *SSL_get1_peer_certificate(const void *connection);
void ERR_new(void);
void ERR_set_debug(const char *file, int line, const char *function);
void ERR_set_error(int library, int reason, const char *format, ...);

int EVP_MD_size(const void *digest) { return EVP_MD_get_size(digest); }

void *SSL_get_peer_certificate(const void *connection) { return SSL_get1_peer_certificate(connection); }

void ERR_put_error(int library, int function, int reason, const char *file, int line) {
    (void)function;
    ERR_new();
    ERR_set_debug(file, line, NULL);
    ERR_set_error(library, reason, NULL);
}

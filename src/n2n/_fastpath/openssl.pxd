"""Externs of libcrypto (3.0 or newer)."""

cdef extern from "<openssl/evp.h>" nogil:
    ctypedef struct EVP_CIPHER:
        pass
    ctypedef struct EVP_CIPHER_CTX:
        pass
    int EVP_CTRL_AEAD_GET_TAG, EVP_CTRL_AEAD_SET_TAG
    EVP_CIPHER *EVP_CIPHER_fetch(void *libctx, const char *algorithm, const char *properties)
    void EVP_CIPHER_free(EVP_CIPHER *cipher)
    EVP_CIPHER_CTX *EVP_CIPHER_CTX_new()
    void EVP_CIPHER_CTX_free(EVP_CIPHER_CTX *ctx)
    int EVP_CIPHER_CTX_ctrl(EVP_CIPHER_CTX *ctx, int kind, int arg, void *ptr)
    int EVP_EncryptInit_ex2(EVP_CIPHER_CTX *c, const EVP_CIPHER *t, const unsigned char *k, const unsigned char *iv,
                            void *p)
    int EVP_EncryptUpdate(EVP_CIPHER_CTX *ctx, unsigned char *out, int *outl, const unsigned char *inp, int inl)
    int EVP_EncryptFinal_ex(EVP_CIPHER_CTX *ctx, unsigned char *out, int *outl)
    int EVP_DecryptInit_ex2(EVP_CIPHER_CTX *c, const EVP_CIPHER *t, const unsigned char *k, const unsigned char *iv,
                            void *p)
    int EVP_DecryptUpdate(EVP_CIPHER_CTX *ctx, unsigned char *out, int *outl, const unsigned char *inp, int inl)
    int EVP_DecryptFinal_ex(EVP_CIPHER_CTX *ctx, unsigned char *out, int *outl)

cdef extern from "<openssl/crypto.h>" nogil:
    const char *OpenSSL_version(int kind)
    int OPENSSL_VERSION
    void OPENSSL_cleanse(void *ptr, size_t size)
    int CRYPTO_memcmp(const void *a, const void *b, size_t size)

cdef extern from * nogil:
    """
    #include <openssl/crypto.h>
    /* A libcrypto inside this extension does not read the host's openssl.cnf: that file is written for another one,
       whose providers it may name. */
    #ifdef N2N_STATIC_LIBCRYPTO
    #define N2N_INIT_OPTIONS OPENSSL_INIT_NO_LOAD_CONFIG
    #else
    #define N2N_INIT_OPTIONS 0
    #endif
    static inline int n2n_libcrypto_init(void) { return OPENSSL_init_crypto(N2N_INIT_OPTIONS, NULL); }
    """
    int n2n_libcrypto_init()

cdef extern from "<openssl/err.h>" nogil:
    void ERR_clear_error()
